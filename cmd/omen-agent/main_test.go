// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/tpmsim"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"omen-agent": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts types commands as a person does, in a folder with a software TPM
// and the agent.toml of a host whose OpenBao does not answer.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "bend": bend,
		},
	})
}

func setUp(e *testscript.Env) error {
	device := "unix:" + tpmsim.Start(e.T().(testing.TB)).Socket()
	// What a person may have in the environment must have no influence.
	for _, name := range []string{"BAO_TOKEN", "VAULT_TOKEN", "BAO_SKIP_VERIFY", "VAULT_SKIP_VERIFY"} {
		e.Setenv(name, "true")
	}
	root, leaf, err := certificates()
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`[openbao]
addresses = ["https://127.0.0.1:1"]
ca_file = "%[1]s/root.pem"
role = "keylime"
[tpm]
device = %[2]q
event_log = "none"
[pki]
anchor = "%[1]s/root.pem"
[[certificate]]
name = "verifier"
profile = "keylime-verifier"
common_name = "verifier.keylime.funlab.casa"
`, e.WorkDir, device)
	for name, content := range map[string][]byte{"root.pem": root, "leaf.pem": leaf, "agent.toml": []byte(config)} {
		if err := os.WriteFile(filepath.Join(e.WorkDir, name), content, 0o644); err != nil {
			return err
		}
	}
	return os.Chmod(e.WorkDir, 0o755)
}

// certificates makes a self-signed root and a certificate under it, as PEM.
func certificates() (root, leaf []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	child := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: template.NotBefore, NotAfter: template.NotAfter}
	below, err := x509.CreateCertificate(rand.Reader, child, template, key.Public(), key)
	encode := func(b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}) }
	return encode(der), encode(below), err
}

// exits runs a command and wants exactly this exit code: exits 3 omen-agent …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	got := "exit status 0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = err.Error()
	}
	if want := "exit status " + args[0]; got != want {
		ts.Fatalf("%v ended with %s, not %s", args[1:], got, want)
	}
}

// bend writes a file with one text replaced by another: bend NEW FROM OLD NEW
func bend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: bend NEWFILE FILE OLD NEW")
	}
	text := ts.ReadFile(args[1])
	bent := strings.Replace(text, args[2], strings.ReplaceAll(args[3], `\n`, "\n"), 1)
	if bent == text {
		ts.Fatalf("%s is not in %s", args[2], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(bent), 0o644))
}

// An event log is looked for in the middle of a login, where a script has no
// server to get to.
func TestEventLogHasARemedy(t *testing.T) {
	err := &agent.StepError{Step: agent.StepTPM, Err: fmt.Errorf("%w: no such file", host.ErrEventLog)}
	if got := hint(err); !strings.Contains(got, `event_log = "none"`) || exitCode(err) != exitTPM {
		t.Errorf("%q, exit code %d", got, exitCode(err))
	}
}

// Every rule has a remedy and ends the program alike; one that an operator mends
// names this host's TPM.
func TestRulesHaveARemedy(t *testing.T) {
	id := attest.TPMID("sha256-" + strings.Repeat("2a", 32))
	refusal := func(rule attest.Rule) error {
		return &agent.StepError{Step: agent.StepLogin, TPMID: id,
			Err: &bao.Error{Op: "login", Kind: bao.KindRefused, Status: rule.Status(), Rule: rule}}
	}
	for _, rule := range []attest.Rule{
		attest.RuleSize, attest.RuleSyntax, attest.RuleRole, attest.RuleChallenge, attest.RuleFreshness, attest.RuleEKCertificate,
		attest.RuleEKWeak, attest.RuleInternal, attest.RuleAudience, attest.RuleEKAK, attest.RuleBootPolicy, attest.RuleHostUnknown,
		attest.RuleState, attest.RuleTPMTaken, attest.RulePending, attest.RuleHostDisabled, attest.RuleTicket, attest.RuleNameTaken,
		attest.RuleKey, attest.RuleClone, attest.RulePCRDigest, attest.RuleEventLog, attest.RuleEventLogNeeded,
	} {
		if err := refusal(rule); hint(err) == "" || exitCode(err) != exitRefused || strings.Contains(hint(err), "<TPM ID>") {
			t.Errorf("%s: exit code %d, hint %q", rule, exitCode(err), hint(err))
		}
	}
	for rule, command := range map[attest.Rule]string{
		attest.RulePending:     "bao write auth/tpm/pending/" + string(id) + "/approve name=<host> roles=<role>",
		attest.RuleHostUnknown: "bao write auth/tpm/host/<name> tpm_ids=" + string(id),
	} {
		if got := hint(refusal(rule)); !strings.Contains(got, command) {
			t.Errorf("%s: %q", rule, got)
		}
	}
	gone := fmt.Errorf("%w; %w", refusal(attest.RuleTicket), agent.ErrTicketGone)
	if got := hint(gone); !strings.Contains(got, "ask the operator for another") || exitCode(gone) != exitRefused {
		t.Errorf("%q, exit code %d", got, exitCode(gone))
	}
}

// A ticket that somebody opened before is an alarm.
func TestSpentTicketIsAnAlarm(t *testing.T) {
	err := &agent.StepError{Step: agent.StepLogin, Err: fmt.Errorf("open ticket: %w", &bao.Error{
		Op: "unwrap", Kind: bao.KindRejected, Status: 400, Message: "wrapping token is not valid or does not exist"})}
	if got := hint(err); !strings.Contains(got, "somebody else may have read it") || exitCode(err) != exitRefused {
		t.Errorf("%q, exit code %d", got, exitCode(err))
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\nc\u202e"); got != "a\uFFFD[2Jb c\uFFFD" {
		t.Errorf("%q", got)
	}
}
