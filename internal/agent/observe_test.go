// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/alarm"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/journal"
	"funlab.casa/omen/issuer"
)

// heard is an Observer that keeps what it hears.
type heard struct {
	attempts []Attempt
	states   []State
}

// Attempted is of Observer.
func (h *heard) Attempted(a Attempt) { h.attempts = append(h.attempts, a) }

// Observed is of Observer.
func (h *heard) Observed(s State) { h.states = append(h.states, s) }

func TestResults(t *testing.T) {
	for want, err := range map[Result]error{
		RenewalSucceeded:  nil,
		RenewalFailed:     at(StepTPM, "", host.ErrNoAnswer),
		RenewalRefused:    refusal("login", attest.RuleBootPolicy),
		RenewalRolledBack: &StepError{Step: StepProbe, Err: errors.New("not served"), RolledBack: true},
	} {
		if got := result(err); got != want {
			t.Errorf("%v: %s", err, got)
		}
	}
	for kind, want := range map[bao.Kind]Result{
		bao.KindDenied: RenewalRefused, bao.KindRejected: RenewalRefused, bao.KindUnreachable: RenewalFailed, bao.KindSealed: RenewalFailed, bao.KindUnknownCA: RenewalFailed,
	} {
		err := at(StepSign, "x", &bao.Error{Op: "sign", Kind: kind})
		if got := result(err); got != want {
			t.Errorf("%s: %s", kind, got)
		}
		if kept := new(Agent).failure(err); kept.Refused != (want == RenewalRefused) {
			t.Errorf("%s: %+v", kind, kept)
		}
	}
	if got := slices.Sorted(slices.Values(Results())); len(got) != 4 {
		t.Errorf("%v", got)
	}
}

// refusedHost is an agent with a TPM whose OpenBao refuses it once by each of these
// rules, and which has one certificate to renew.
func refusedHost(t *testing.T, rules ...string) *prover {
	t.Helper()
	p := newProver(t, newServer(t, rules...))
	root := t.TempDir()
	p.install, p.now, p.state = &install.Installer{Root: root, StateDir: "/state"}, time.Now, p.tpm.StateDir
	p.config.Certificates = []config.Certificate{{
		Name: "web", Profile: config.General, ForUsage: config.Client, Key: "file", CommonName: "web.funlab.casa", Path: "pki_int", TTL: config.Duration{Duration: time.Hour},
		Files: config.Files{Folder: "/etc/web/omen"}, Service: config.Service{Action: config.NoAct},
	}}
	return p
}

// TestAttemptIsTold makes a real renewal that the server refuses: the observer hears
// at which step it ended, by which rule, and what it cost; the steps are told as
// they begin.
func TestAttemptIsTold(t *testing.T) {
	p := refusedHost(t, "boot-policy")
	var told heard
	var steps []Step
	p.Observer, p.Progress = &told, func(s Step) { steps = append(steps, s) }
	if _, err := p.Renew(t.Context(), nil); !Refused(err) {
		t.Fatal(err)
	}
	if len(told.attempts) != 1 {
		t.Fatalf("%+v", told.attempts)
	}
	got := told.attempts[0]
	if got.Result != RenewalRefused || got.Step != StepLogin || got.Rule != attest.RuleBootPolicy || got.Ended.IsZero() || got.Commands["Quote"] != 1 {
		t.Errorf("%+v", got)
	}
	if want := []Step{StepTPM, StepKey, StepTPM, StepChallenge, StepTPM, StepLogin}; !slices.Equal(steps, want) {
		t.Errorf("steps: %v, not %v", steps, want)
	}
	if spent := slices.Sorted(maps.Keys(got.Spent)); !slices.Equal(spent, []Step{StepChallenge, StepKey, StepLogin, StepTPM}) || got.Spent[StepTPM] <= 0 {
		t.Errorf("spent: %v", got.Spent)
	}

	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := p.Renew(stopped, nil); err == nil || len(told.attempts) != 1 {
		t.Errorf("what was stopped is counted: %v, %+v", err, told.attempts)
	}
}

// TestFailureKeepsItsRemedy: status tells what to do, also another process's.
func TestFailureKeepsItsRemedy(t *testing.T) {
	p := refusedHost(t, "boot-policy")
	p.Hint = func(error) string { return "ask somebody" }
	if _, err := p.Renew(t.Context(), nil); err == nil {
		t.Fatal("not refused")
	}
	status, err := p.Status()
	if err != nil || status.Failure == nil || status.Failure.Remedy != "ask somebody" || status.Failure.Rule != "boot-policy" {
		t.Errorf("%+v, %v", status.Failure, err)
	}
	if status.Clock == nil || status.Clock.Offset.Abs() > 10*time.Second {
		t.Errorf("clock: %+v", status.Clock)
	}
}

// TestNothingSecretInTheJournal makes renewals that fail and looks for the token and
// for keys in what the journal is told at level debug.
func TestNothingSecretInTheJournal(t *testing.T) {
	p := refusedHost(t, "boot-policy", "", "host-unknown", "cut")
	var text bytes.Buffer
	send := func(message string, _ systemd.Priority, fields map[string]string) error {
		fmt.Fprintln(&text, message, fields)
		return nil
	}
	p.log = slog.New(journal.NewTo(send, slog.LevelDebug, slog.DiscardHandler))
	p.install.Log = p.log
	for range 4 {
		if _, err := p.Renew(t.Context(), nil); err != nil {
			p.log.Error("renewal failed", "error", err, "agent", p.Agent, "config", p.config)
		}
	}
	for _, want := range []string{"OMEN_RULE:boot-policy", "OMEN_RULE:host-unknown", "OMEN_STEP:login", "OMEN_STEP:sign"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in %s", want, text.String())
		}
	}
	for _, secret := range []string{"b.token", "PRIVATE KEY"} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, text.String())
		}
	}
}

// servingHost is an agent of one general certificate, installed, that a program here
// is said to serve at address.
func servingHost(t *testing.T, address string) (*prover, *heard, *bytes.Buffer) {
	t.Helper()
	p := refusedHost(t)
	p.config.Certificates[0].Service.Probe = address
	if err := os.MkdirAll(filepath.Join(p.install.Root, "etc/web"), 0o755); err != nil {
		t.Fatal(err)
	}
	orders, err := p.orders(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := issuer.NewKey(t.Context(), issuer.ModeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	orders[0].key, orders[0].issued = key, issueOver(t, key.SPKI())
	s := p.sets()[0]
	items, err := p.items(s, orders)
	if err != nil {
		t.Fatal(err)
	}
	change, err := s.install.Install(t.Context(), items)
	if err == nil {
		err = change.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	told, text := new(heard), new(bytes.Buffer)
	p.Observer, p.log = told, slog.New(slog.NewTextHandler(text, nil))
	return p, told, text
}

// TestObserve: what is not served is told and logged once, and what is over too.
func TestObserve(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes a connection and says nothing of TLS
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for conn, err := silent.Accept(); err == nil; conn, err = silent.Accept() {
			conn.Close()
		}
	}()
	defer silent.Close()
	p, told, text := servingHost(t, silent.Addr().String())
	for range 2 { // one look soon after the other
		found := look(t, p.Agent)
		if strings.Contains(text.String(), "kind=served") || told.states[0].Served["web"] || !found.Soon {
			t.Errorf("at first: %+v, %+v\n%s", found, told.states[0].Served, text)
		}
	}
	p.now = in(settles)
	for range 2 {
		if found := look(t, p.Agent); found.Soon {
			t.Errorf("told, and looked at again soon: %+v", found)
		}
	}
	if len(told.states) != 4 {
		t.Fatalf("%d states are told:\n%s", len(told.states), text)
	}
	got := told.states[2]
	if diff := cmp.Diff(map[string]bool{"web": false}, got.Served); diff != "" {
		t.Error(diff)
	}
	if got.TPM == nil || got.TPM.MaxTries == 0 || got.Time.IsZero() || len(got.Status.Certificates) != 1 {
		t.Errorf("%+v", got)
	}
	if mostUrgent(got.Alarms) != alarm.Warning || !slices.ContainsFunc(got.Alarms, func(a Alarm) bool { return a.Kind == AlarmServed && a.Certificate == "web" }) {
		t.Errorf("alarms: %+v", got.Alarms)
	}
	if n := strings.Count(text.String(), "event=alarm kind=served level=warning certificate=web"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, text)
	}
	next := *p.Agent // of a configuration in which nobody is asked any more
	next.config, next.memory = &config.Config{Certificates: slices.Clone(p.config.Certificates)}, memory{}
	next.config.Certificates[0].Service.Probe = ""
	next.Succeed(p.Agent)
	look(t, &next)
	if !strings.Contains(text.String(), `msg="an alarm is over" event=alarm-over kind=served certificate=web`) || len(told.states[4].Served) != 0 {
		t.Errorf("%s", text)
	}
}

// TestServiceThatCannotBeAsked: nobody knows what is served, which is an alarm.
func TestServiceThatCannotBeAsked(t *testing.T) {
	here, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	p, told, text := servingHost(t, here.Addr().String())
	p.config.Certificates[0].Service = config.Service{Action: "restart", Start: []string{"/bin/sleep", "60"}, Probe: here.Addr().String()}
	look(t, p.Agent)
	if all := told.states[0].Alarms; !slices.ContainsFunc(all, func(one Alarm) bool {
		return one.Kind == AlarmServed && strings.Contains(one.Reason, "set web cannot be asked")
	}) {
		t.Errorf("%+v\n%s", all, text)
	}
}

// look is a look that must succeed.
func look(t *testing.T, a *Agent) *Found {
	t.Helper()
	found, err := a.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// in is a clock that is so much ahead.
func in(ahead time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(ahead) }
}

// TestObserveWithoutTPM: a TPM that cannot be asked is no reason not to look.
func TestObserveWithoutTPM(t *testing.T) {
	p, told, _ := servingHost(t, "")
	p.tpm.Device = "unix:" + filepath.Join(t.TempDir(), "absent")
	look(t, p.Agent)
	if len(told.states) != 1 || told.states[0].TPM != nil {
		t.Errorf("%+v", told.states)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := p.Look(stopped); err != nil || len(told.states) != 1 {
		t.Errorf("what was cut short is told: %v", err)
	}
}

// TestWrongClockIsAskedAgain: a clock that was wrong is asked about until it is right,
// a good one never.
func TestWrongClockIsAskedAgain(t *testing.T) {
	p, told, _ := servingHost(t, "")
	for _, row := range []struct {
		offset time.Duration
		asked  bool
	}{{time.Second, false}, {-time.Hour, true}} {
		if err := p.keep(recordName, Record{Host: "spire", Clock: &Clock{Offset: row.offset}}); err != nil {
			t.Fatal(err)
		}
		look(t, p.Agent)
		clock := told.states[len(told.states)-1].Status.Clock
		if asked := clock.Offset != row.offset; asked != row.asked || clock.Offset.Abs() > ClockTolerance {
			t.Errorf("%s: %+v", row.offset, clock)
		}
	}
	if r := p.recall(); r.Host != "spire" {
		t.Errorf("the record lost the rest: %+v", r)
	}
}

// TestEventsHaveIDs: each its own, as systemd wants them.
func TestEventsHaveIDs(t *testing.T) {
	seen := map[string]Event{}
	for _, event := range Events() {
		id := event.MessageID()
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || seen[id] != "" {
			t.Errorf("%s: %q, as %s", event, id, seen[id])
		}
		seen[id] = event
	}
	if len(seen) != 6 {
		t.Errorf("%v", seen)
	}
}

// TestStrangerIsRenewedFor: a service that goes on serving something else has to restart;
// one that does not serve at all may have been stopped.
func TestStrangerIsRenewedFor(t *testing.T) {
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	defer stranger.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for address, want := range map[string]cause{stranger.Listener.Addr().String(): causeStranger, closed.Addr().String(): ""} {
		p, _, text := servingHost(t, address)
		// One look after the other; a renewal in between, which does not help; an hour later.
		for _, row := range []struct {
			at   time.Duration
			want cause
		}{{0, ""}, {time.Second, ""}, {settles, want}, {settles, want}} {
			p.now = in(row.at)
			if found := look(t, p.Agent); found.Renew != string(row.want) {
				t.Errorf("%s after %s: %q, not %q\n%s", address, row.at, found.Renew, row.want, text)
			}
		}
		p.answer(p.sets()[0])
		if found := look(t, p.Agent); found.Renew != "" {
			t.Errorf("%s: again at once: %q", address, found.Renew)
		}
		p.now = in(settles + betweenAnswers + time.Minute)
		if found := look(t, p.Agent); found.Renew != string(want) {
			t.Errorf("%s: an hour later: %q", address, found.Renew)
		}
	}
}

// TestStrangerConcernsItsSetAlone: what is wrong with one set does not restart another;
// and a renewal for it does not hide that another cause comes up.
func TestStrangerConcernsItsSetAlone(t *testing.T) {
	a, root := severalInstalled(t)
	a.needs = []need{{causeStranger, "web"}}
	if got := a.pending(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("to renew: %v", got)
	}
	a.answer(a.sets()[1])
	place(t, filepath.Join(root, "var/lib/omen-agent/web/current/ca.crt"), "x")
	if found := look(t, a); found.Renew != string(causeSpoiled) || !slices.Equal(found.Certificates, []string{"web"}) {
		t.Errorf("%+v", found)
	}
}
