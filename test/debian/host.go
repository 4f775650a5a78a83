// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

// A Machine is a Debian that runs, in a container or on a computer.
type Machine interface {
	// Run runs a command in it and returns what that says on both outputs.
	Run(ctx context.Context, arguments ...string) ([]byte, error)
}

// A Host is the host auth of a story, on a machine. Its methods fail the test where the
// machine is not as they want it.
type Host struct {
	Machine
	T        *testing.T
	Context  context.Context
	Story    *story.Story
	Port     string        // where a test reaches the port of Keylime's agent
	Patience time.Duration // for what a machine does by itself
}

// NewHost tells the story until OpenBao knows the host and Keylime runs on spire; the
// host's Machine is the caller's to make. When the test ends, remove takes that away; of
// a test that failed it is shown what was said.
func NewHost(ctx context.Context, t *testing.T, port string, patience time.Duration, remove func() error) *Host {
	t.Helper()
	s := &story.Story{}
	h := &Host{T: t, Context: ctx, Story: s, Port: port, Patience: patience}
	t.Cleanup(func() {
		if t.Failed() && h.Machine != nil {
			t.Log(h.Words())
			t.Log(s.World.Logs(20))
		}
		h.Must(remove())
		h.Must(s.Close())
	})
	for _, step := range story.Steps()[:5] {
		if _, err := step.Run(ctx, s); err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
	}
	return h
}

// Must ends the test on an error.
func (h *Host) Must(err error) {
	h.T.Helper()
	if err != nil {
		h.T.Fatal(err)
	}
}

// Inside is what a command says inside.
func (h *Host) Inside(arguments ...string) string {
	h.T.Helper()
	output, err := h.Run(h.Context, arguments...)
	if err != nil {
		h.T.Logf("%v: %v", arguments, err)
	}
	return strings.TrimSpace(string(output))
}

// Show is a property of a unit.
func (h *Host) Show(unit, property string) string {
	h.T.Helper()
	return h.Inside("systemctl", "show", "--value", "--property="+property, unit)
}

// Expect wants units in these states: "active success".
func (h *Host) Expect(states map[string]string) {
	h.T.Helper()
	for unit, want := range states {
		if got := h.Show(unit, "ActiveState") + " " + h.Show(unit, "Result"); got != want {
			h.T.Errorf("%s is %s, not %s", unit, got, want)
		}
	}
}

// Journal is what a unit has said in this boot.
func (h *Host) Journal(unit string) string {
	h.T.Helper()
	return h.Inside("journalctl", "--no-pager", "-b", "-o", "cat", "-u", unit)
}

// Words are the journals of the units, for a person who wants to know what went wrong.
func (h *Host) Words() string {
	return h.Inside("journalctl", "--no-pager", "-b", "-o", "short-monotonic", "-u", AgentService, "-u", UnsealService, "-u", KeylimeAgent)
}

// Moment is a property of a unit that is a time since the boot.
func (h *Host) Moment(unit, property string) time.Duration {
	h.T.Helper()
	number, err := strconv.ParseInt(h.Show(unit, property), 10, 64)
	h.Must(err)
	return time.Duration(number) * time.Microsecond
}

// Held is for how long the service was held back by the agent.
func (h *Host) Held() time.Duration {
	h.T.Helper()
	return h.Moment(KeylimeAgent, "ExecMainStartTimestampMonotonic") - h.Moment(AgentService, "ExecMainStartTimestampMonotonic")
}

// Starts counts how often the service began to listen in this boot.
func (h *Host) Starts() int {
	h.T.Helper()
	return strings.Count(h.Journal(KeylimeAgent), "Listening on")
}

// WantStarts wants that many, and none of them systemd's second try.
func (h *Host) WantStarts(n int) {
	h.T.Helper()
	if got := h.Starts(); got != n {
		h.T.Errorf("Keylime's agent started %d times, not %d", got, n)
	}
	if restarts := h.Show(KeylimeAgent, "NRestarts"); restarts != "0" {
		h.T.Errorf("systemd had to start it %s times again", restarts)
	}
}

// WantUnsealedOffline wants the unit that has no network to have given the key out.
func (h *Host) WantUnsealedOffline() {
	h.T.Helper()
	said := h.Journal(UnsealService)
	if !slices.ContainsFunc(strings.Split(said, "\n"), func(line string) bool { return slices.Equal(strings.Fields(line), []string{"unsealed", "agent"}) }) {
		h.T.Errorf("unsealed: %s", said)
	}
}

// Installed is the leaf on the disk.
func (h *Host) Installed() *x509.Certificate {
	h.T.Helper()
	text := h.Inside("cat", "/var/lib/omen-agent/keylime/current/agent.crt")
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		h.T.Fatalf("no certificate is installed: %s", text)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	h.Must(err)
	return leaf
}

// WantServed wants the installed certificate on the wire, and returns it.
func (h *Host) WantServed() *x509.Certificate {
	h.T.Helper()
	leaf := h.Installed()
	h.await(30*time.Second, func(ctx context.Context) error {
		served, err := h.Story.World.Served(ctx, h.Port)
		if err == nil && !served.Equal(leaf) {
			err = fmt.Errorf("serves %x, installed is %x", served.SerialNumber, leaf.SerialNumber)
		}
		return err
	})
	return leaf
}

// Await waits until the journal of a unit, of this boot, holds a text.
func (h *Host) Await(unit, text string) {
	h.T.Helper()
	h.await(h.Patience, func(context.Context) error {
		if said := h.Journal(unit); !strings.Contains(said, text) {
			return fmt.Errorf("the journal of %s has no %q:\n%s", unit, text, said)
		}
		return nil
	})
}

// AwaitAnother waits until a certificate is installed that is not this one, and is served.
func (h *Host) AwaitAnother(old *x509.Certificate, patience time.Duration) *x509.Certificate {
	h.T.Helper()
	h.await(patience, func(context.Context) error {
		if h.Installed().Equal(old) {
			return fmt.Errorf("%x is still installed", old.SerialNumber)
		}
		return nil
	})
	return h.WantServed()
}

func (h *Host) await(patience time.Duration, ask func(context.Context) error) {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(h.Context, patience)
	defer cancel()
	h.Must(world.Await(ctx, ask))
}
