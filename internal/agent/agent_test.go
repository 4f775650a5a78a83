// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/tpmsim"
)

func refusal(op string, rule attest.Rule) error {
	return at(StepLogin, "", &bao.Error{Op: op, Kind: bao.KindRefused, Status: rule.Status(), Rule: rule})
}

// A conversation is begun again once, and only where that can help.
func TestStartOver(t *testing.T) {
	device := tpmsim.Start(t)
	state := t.TempDir()
	open := func() *host.Prover {
		p, err := host.Open(t.Context(), host.Config{Device: "unix:" + device.Socket(), EventLog: "none", StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Request(t.Context(), "keylime"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fresh := open() // it has just asked the TPM
	if err := fresh.Close(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name          string
		err           error
		fresh, record bool
	}{
		{"challenge spent", refusal("login", attest.RuleFreshness), true, true},
		{"role changed", refusal("login", attest.RuleState), true, true},
		{"leader lost", at(StepLogin, "", &bao.Error{Op: "login", Kind: bao.KindUnreachable}), true, true},
		{"TPM has other keys", at(StepTPM, "", host.ErrStartOver), true, true},
		{"EK certificate refused", refusal("challenge", attest.RuleEKCertificate), false, true},
		{"host unknown", refusal("login", attest.RuleHostUnknown), false, true},
		{"boot refused", refusal("login", attest.RuleBootPolicy), false, false},
		{"denied", at(StepLogin, "", &bao.Error{Op: "login", Kind: bao.KindDenied}), false, false},
		{"TPM gone", at(StepTPM, "", host.ErrNoAnswer), false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := (&proof{prover: fresh}).again(row.err); got != row.fresh {
				t.Errorf("after asking the TPM: %v", got)
			}
			recorded := open()
			defer recorded.Close()
			if got := (&proof{prover: recorded}).again(row.err); got != row.record {
				t.Errorf("from the record: %v", got)
			}
		})
	}
}

func TestFinalRefusals(t *testing.T) {
	for err, want := range map[error]bool{
		refusal("login", attest.RuleHostUnknown):                                      true,
		refusal("login", attest.RuleFreshness):                                        false,
		at(StepSign, "x", &bao.Error{Op: "sign", Kind: bao.KindDenied}):               true,
		at(StepChallenge, "", &bao.Error{Op: "challenge", Kind: bao.KindSealed}):      false,
		at(StepProbe, "", errors.New("not served")):                                   false,
		at(StepChallenge, "", &bao.Error{Op: "challenge", Kind: bao.KindUnknownCA}):   true,
		at(StepChallenge, "", &bao.Error{Op: "challenge", Kind: bao.KindUnreachable}): false,
	} {
		if got := Refused(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestRecordIsForPeople(t *testing.T) {
	a := &Agent{state: filepath.Join(t.TempDir(), "state"), log: slog.New(slog.DiscardHandler), now: time.Now}
	a.remember(&Outcome{Host: "spire"}, nil)
	good := a.recall()
	if good.Host != "spire" || good.LastSuccess.IsZero() || good.Failure != nil {
		t.Fatalf("after a success: %+v", good)
	}
	a.remember(nil, &StepError{Step: StepProbe, Err: errors.New("not served"), RolledBack: true})
	a.remember(nil, refusal("login", attest.RuleBootPolicy))
	bad := a.recall()
	if !bad.LastSuccess.Equal(good.LastSuccess) || bad.Host != "spire" {
		t.Errorf("a failure forgot the last success: %+v", bad)
	}
	if bad.Failure == nil || bad.Failure.Step != StepLogin || bad.Failure.Rule != "boot-policy" {
		t.Errorf("failure: %+v", bad.Failure)
	}
	path := filepath.Join(a.state, recordName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Record{}, a.recall()); diff != "" {
		t.Errorf("a broken record is read as something: %s", diff)
	}
	left, err := os.ReadDir(a.state)
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

func TestDue(t *testing.T) {
	now := time.Now()
	at := func(hours int) Certificate { return Certificate{RenewAt: now.Add(time.Duration(hours) * time.Hour)} }
	if got := due([]Certificate{at(3), at(1), at(2)}); !got.Equal(at(1).RenewAt) {
		t.Errorf("due %v", got)
	}
	if got := due([]Certificate{at(3), {}}); !got.IsZero() {
		t.Errorf("one is not installed, and renewal is due only at %v", got)
	}
}

func TestDescribeCertificate(t *testing.T) {
	c := &config.Certificate{Name: "verifier", Profile: "keylime-verifier", CommonName: "v", TTL: config.Duration{Duration: 24 * time.Hour}}
	begin := time.Now()
	current := &install.Installed{Certificates: []install.Certificate{
		{Name: "verifier", Serial: "01", NotBefore: begin, NotAfter: begin.Add(24 * time.Hour)},
	}}
	got := describeCertificate(c, current)
	if early := begin.Add(16 * time.Hour).Sub(got.RenewAt); got.Serial != "01" || early < 0 || early > 2*time.Hour || got.Service != "keylime_verifier.service" {
		t.Errorf("%+v", got)
	}
	if got := describeCertificate(c, nil); got.Serial != "" || !got.RenewAt.IsZero() {
		t.Errorf("nothing installed: %+v", got)
	}
}

func TestStepErrorKeepsItsFirstStep(t *testing.T) {
	cause := errors.New("cause")
	err := at(StepInstall, "", fmt.Errorf("around: %w", at(StepSign, "verifier", cause)))
	var step *StepError
	if !errors.As(err, &step) || step.Step != StepSign || !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if at(StepTPM, "", nil) != nil {
		t.Error("a nil error became one")
	}
}
