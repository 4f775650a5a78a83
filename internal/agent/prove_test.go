// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
)

// A server that holds no verdict for this boot gets the measurements, once.
func TestMeasurementsWhenAsked(t *testing.T) {
	s := newServer(t, "event-log-needed")
	p := newProver(t, s)
	session, err := p.login(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session.Host != "spire" || session.RenewAfter != time.Hour {
		t.Errorf("session %+v", session)
	}
	if len(s.logins) != 2 || s.logins[0].PCRs != nil || s.logins[0].EventLog != nil {
		t.Fatalf("%d logins, the first with %d values", len(s.logins), len(s.logins[0].PCRs))
	}
	second := s.logins[1]
	hash := sha256.Sum256(second.EventLog)
	if len(second.PCRs) != 2 || string(second.EventLog) != "an event log" || !bytes.Equal(hash[:], second.EventLogHash) {
		t.Errorf("second login: %d values, log %q", len(second.PCRs), second.EventLog)
	}
	if second.WantedName != "spire" || second.Ticket != nil {
		t.Errorf("wanted name %q, ticket %v", second.WantedName, second.Ticket)
	}
}

// Each reason to start over counts once, and they add up: a fail-over can come
// between a server's wish for measurements and what it gets.
func TestEachReasonOnce(t *testing.T) {
	for _, row := range []struct {
		script []string
		logins int
		rule   attest.Rule // that ends it
	}{
		{[]string{"event-log-needed", "challenge"}, 3, ""},
		{[]string{"challenge", "freshness", "state", "event-log-needed"}, 5, ""},
		{[]string{"event-log-needed", "event-log-needed"}, 2, "event-log-needed"},
		{[]string{"state", "challenge", "state"}, 3, "state"},
		{[]string{"event-log-needed", "event-log"}, 2, "event-log"},
		{[]string{"event-log-needed", "pcr-digest"}, 2, "pcr-digest"},
		{[]string{"clone"}, 1, "clone"},
		{[]string{"key"}, 1, "key"},
		{[]string{"name-taken"}, 1, "name-taken"},
		{[]string{"pending"}, 1, "pending"},
	} {
		s := newServer(t, row.script...)
		_, err := newProver(t, s).login(t, nil)
		var e *bao.Error
		if errors.As(err, &e) != (row.rule != "") || e != nil && e.Rule != row.rule || len(s.logins) != row.logins {
			t.Errorf("%v: %v after %d logins", row.script, err, len(s.logins))
		}
		var step *StepError
		if errors.As(err, &step) && step.TPMID.Check() != nil {
			t.Errorf("%v: the error has the TPM ID %q", row.script, step.TPMID)
		}
	}
}

// When the node of a challenge fails, the whole conversation goes to another one,
// for its audience; the one that failed is left alone.
func TestLoginStartsOverAtAnotherNode(t *testing.T) {
	for _, fault := range []string{"cut", "redirect", "busy", "failing"} {
		t.Run(fault, func(t *testing.T) {
			old, new := newServer(t, fault, "ak-shape"), newServer(t)
			session, err := newProver(t, old, new).login(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			if session.Node.Address != new.URL || new.logins[0].Audience != new.URL+"||auth/tpm" {
				t.Errorf("logged in at %s for %s", session.Node.Address, new.logins[0].Audience)
			}
			if want := []string{"auth/tpm/challenge", "auth/tpm/login"}; !slices.Equal(old.paths, want) || !slices.Equal(new.paths, want) {
				t.Errorf("asked %v and %v", old.paths, new.paths)
			}
		})
	}
}

// A cluster whose nodes fail one after the other is asked for half a minute and
// not for two conversations only.
func TestLoginOutlivesSeveralFailures(t *testing.T) {
	first, second, third := newServer(t, "cut"), newServer(t, "failing"), newServer(t, "redirect")
	session, err := newProver(t, first, second, third).login(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(first.logins) + len(second.logins) + len(third.logins); n != 4 || session.Node.Address != first.URL {
		t.Errorf("%d logins, in at %s", n, session.Node.Address)
	}
}

func TestFailuresEndInTime(t *testing.T) {
	p := &proof{until: time.Now().Add(-time.Second)}
	if p.again(at(StepLogin, "", &bao.Error{Op: "login", Kind: bao.KindUnreachable})) {
		t.Error("half a minute after the first failure, once more")
	}
}

func TestRenewBy(t *testing.T) {
	now := time.Now()
	due := now.Add(16 * time.Hour)
	for after, want := range map[time.Duration]time.Time{
		0: due, time.Second: now.Add(time.Minute), time.Hour: now.Add(time.Hour), 48 * time.Hour: due,
	} {
		if got := bounded(due, renewBy(now, after)); !got.Equal(want) {
			t.Errorf("hint %s: renewal in %s, want %s", after, got.Sub(now), want.Sub(now))
		}
	}
	if got := bounded(time.Time{}, renewBy(now, time.Hour)); !got.IsZero() {
		t.Errorf("nothing is installed, and renewal is due only at %v", got)
	}
}
