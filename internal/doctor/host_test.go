// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/tpmsim"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serveWord {
		os.Exit(serve(os.Args[2:]))
	}
	code := m.Run()
	if err := common.close(); err != nil {
		fmt.Fprintln(os.Stderr, "close OpenBao:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// memory is a file system in memory: what is synced there costs nothing.
const memory = "/dev/shm"

// machine is one to look at: a folder as its root, and a TPM that has booted with
// the event log of a real machine.
type machine struct {
	t       *testing.T
	root    string
	sim     *tpmsim.TPM
	ca      *testCA
	openbao map[string]string // values of [openbao], as TOML
	tpm     map[string]string
	more    string // other tables
	certs   map[string]string
	units   []service.State // what systemd says; nil is a host without systemd
}

// realLog is the event log of a machine with Secure Boot.
const realLog = "../../attest/eventlog/testdata/logs/ubuntu-2404-amd-sevsnp.bin"

func newHost(t *testing.T) *machine {
	t.Helper()
	return hostOf(t, tpmsim.Start(t))
}

func hostOf(t *testing.T, sim *tpmsim.TPM) *machine {
	t.Helper()
	log, err := os.ReadFile(realLog)
	must(t, err)
	must(t, sim.Replay(log))
	h := bareHost(t)
	h.sim = sim
	h.place("event-log", string(log), 0o600)
	h.tpm = map[string]string{"device": quoted(sim.Device()), "event_log": quoted(h.path("event-log"))}
	return h
}

// bareHost is one whose TPM nobody asks.
func bareHost(t *testing.T) *machine { return hostIn(t, memory) }

func hostIn(t *testing.T, folder string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sudo make test")
	}
	root, err := os.MkdirTemp(folder, "omen-doctor-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	must(t, os.Chmod(root, 0o755))
	h := &machine{t: t, root: root, ca: newCA(t), tpm: map[string]string{"event_log": `"none"`}, certs: map[string]string{}}
	h.place("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nkeylime:x:4711:4712::/var/lib/keylime:/bin/false\n", 0o644)
	h.place("etc/group", "keylime:x:4712:\ntss:x:4713:keylime,webserver\n", 0o644)
	for _, component := range []string{"verifier", "tenant"} {
		h.place("etc/keylime/"+component+".conf", "["+component+"]\n", 0o644)
	}
	must(t, os.MkdirAll(h.path("var/lib"), 0o755))
	must(t, os.MkdirAll(h.path("run"), 0o755))
	h.place("root.pem", string(h.ca.pem), 0o644)
	h.openbao = map[string]string{"addresses": `["https://127.0.0.1:1"]`, "ca_file": quoted(h.path("root.pem")), "role": `"keylime"`}
	h.certificate("tenant", "profile = \"keylime-tenant\"\ncommon_name = \"tenant.keylime.test\"\nkey = \"file\"")
	return h
}

// certificate sets one [[certificate]] table.
func (h *machine) certificate(name, text string) { h.certs[name] = text }

func (h *machine) path(name string) string { return filepath.Join(h.root, name) }

func (h *machine) place(name, text string, mode os.FileMode) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	must(h.t, os.WriteFile(h.path(name), []byte(text), mode))
	must(h.t, os.Chmod(h.path(name), mode))
}

// write writes agent.toml.
func (h *machine) write() string {
	h.t.Helper()
	var text strings.Builder
	for _, table := range []struct {
		name   string
		values map[string]string
	}{{"openbao", h.openbao}, {"tpm", h.tpm}} {
		fmt.Fprintf(&text, "[%s]\n", table.name)
		for _, key := range slices.Sorted(maps.Keys(table.values)) {
			fmt.Fprintf(&text, "%s = %s\n", key, table.values[key])
		}
	}
	fmt.Fprintf(&text, "[pki]\nanchor = %q\n%s", h.path("root.pem"), h.more)
	for _, name := range slices.Sorted(maps.Keys(h.certs)) {
		fmt.Fprintf(&text, "[[certificate]]\nname = %q\n%s\n", name, h.certs[name])
	}
	h.place("agent.toml", text.String(), 0o644)
	return h.path("agent.toml")
}

func (h *machine) doctor() Doctor {
	return Doctor{
		Config: h.write(), Root: h.root, Hint: func(err error) string { return "[remedy of: " + err.Error() + "]" },
		units: func(context.Context, []string) ([]service.State, error) { return h.units, nil },
	}
}

// examine makes one check, and what it needs.
func (h *machine) examine(name string) []Result {
	h.t.Helper()
	d := h.doctor()
	d.Only = []string{name}
	results, err := d.Examine(h.t.Context())
	must(h.t, err)
	all := slices.Clone(results)
	results = slices.DeleteFunc(results, func(r Result) bool { return r.Check != name })
	if len(results) == 0 {
		h.t.Fatalf("%s: no result, of %+v", name, all)
	}
	for _, r := range results {
		if r.Seen == "" || (r.Status == Problem || r.Status == Warning) != (r.Remedy != "") {
			h.t.Errorf("%s: nothing seen, or a remedy too many or too few: %+v", name, r)
		}
	}
	if h.t.Failed() || results[0].Status == NotApplicable {
		h.t.Logf("%+v", all)
	}
	return results
}

// good fails unless all is well.
func (h *machine) good(name string) {
	h.t.Helper()
	for _, r := range h.examine(name) {
		if r.Status != OK {
			h.t.Errorf("%s before it is broken: %+v", name, r)
		}
	}
}

// bad fails unless one result has this status and words.
func (h *machine) bad(name string, status Status, words string) {
	h.t.Helper()
	results := h.examine(name)
	if !slices.ContainsFunc(results, func(r Result) bool {
		return r.Status == status && strings.Contains(r.About+": "+r.Seen, words)
	}) {
		h.t.Errorf("%s: no %s with %q in %+v", name, status, words, results)
	}
}

// tpmIsEmpty: nothing was left in the TPM, and our key is not made persistent. The
// simulator itself tells of objects and sessions when the test ends.
func (h *machine) tpmIsEmpty() {
	h.t.Helper()
	if _, err := (tpm2.ReadPublic{ObjectHandle: attest.AKHandle}).Execute(h.sim); err == nil {
		h.t.Error("the attestation key is in the TPM")
	}
}

func quoted(text string) string { return fmt.Sprintf("%q", text) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
