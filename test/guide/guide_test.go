// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/test/page"
	"funlab.casa/omen/test/world"
)

const (
	guidePage = "../../docs/guide.md"
	wayBack   = "Way back"
)

// TestGuide does what docs/guide.md says: each step, its way back, and the step again.
func TestGuide(t *testing.T) {
	ctx, w, token := openWorld(t)
	r := &reader{ctx: ctx, world: w, token: token, terminals: map[string]*terminal{}}
	for _, h := range w.Hosts() {
		terminal, err := openTerminal(ctx, h)
		must(t, err)
		r.terminals[h.Name] = terminal
	}
	download(ctx, t, w)
	r.logIn(t)
	before := r.state(t)
	for _, s := range sections(t) {
		if !t.Run(s.title, func(t *testing.T) { r.step(t, s) }) {
			t.FailNow() // what comes after stands on it
		}
	}
	before.wantUntouched(t, r.state(t))
	r.wantTokenGone(t)
	for _, h := range w.Hosts() {
		r.wantOurs(t, h)
	}
}

// wantTokenGone wants OpenBao to know nothing of the token that was in the script.
func (r *reader) wantTokenGone(t *testing.T) {
	t.Helper()
	_, err := r.admin.Logical().WriteWithContext(r.ctx, "auth/token/lookup", map[string]any{"token": r.token})
	if err == nil || !strings.Contains(err.Error(), "bad token") {
		t.Errorf("the token of before: %v", err)
	}
}

// wantOurs wants a host that serves what omen-agent installed, and nothing that could
// renew in the old way.
func (r *reader) wantOurs(t *testing.T, h *world.Host) {
	t.Helper()
	if _, err := h.Must(r.ctx, "omen-agent", "verify"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{world.SeedScriptFile, world.SeedServiceFile, world.SeedTimerFile} {
		if h.Exists(path) {
			t.Errorf("%s still has %s", h.Name, path)
		}
	}
}

// section is a step of the page, and what undoes it.
type section struct {
	title    string
	do, undo []page.Block
}

// sections takes the page apart. A block of another language than console and toml
// is only shown.
func sections(t *testing.T) []section {
	t.Helper()
	text, err := os.ReadFile(guidePage)
	must(t, err)
	var all []section
	for _, b := range page.Blocks(string(text), wayBack) {
		if len(all) == 0 || all[len(all)-1].title != b.Section {
			all = append(all, section{title: b.Section})
		}
		s := &all[len(all)-1]
		if b.Part == wayBack {
			s.undo = append(s.undo, b)
		} else {
			s.do = append(s.do, b)
		}
	}
	return all
}

// reader is somebody who does what the page says.
type reader struct {
	ctx       context.Context
	world     *world.World
	terminals map[string]*terminal
	admin     *api.Client
	token     string // in the script of before
	said      string // by the last command that failed
}

// logIn gives spire's terminal what step 1 takes for granted.
func (r *reader) logIn(t *testing.T) {
	t.Helper()
	var err error
	r.admin, err = r.world.Bao.Admin(r.ctx)
	must(t, err)
	_, err = r.terminals[world.Spire].run("export BAO_TOKEN="+r.admin.Token(), "")
	must(t, err)
}

// step does a section. Where there is a way back, it is undone, and done again: what
// was there before is there after.
func (r *reader) step(t *testing.T, s section) {
	if len(s.undo) == 0 {
		r.perform(t, s.do)
		return
	}
	before := r.state(t)
	r.perform(t, s.do)
	if before.equal(r.state(t)) {
		t.Error("the step changes nothing, so that its way back proves nothing")
	}
	r.perform(t, s.undo)
	before.awaitServed(r.ctx, t)
	before.want(t, r.state(t))
	if !t.Failed() && !slices.Contains(alternatives, s.title) {
		r.perform(t, s.do)
	}
}

// alternatives are sections in the place of which the next one can be done. They are
// undone for good.
var alternatives = []string{"The role, narrowed"}

func (r *reader) perform(t *testing.T, blocks []page.Block) {
	t.Helper()
	for _, b := range blocks {
		switch b.Lang {
		case "console":
			r.converse(t, b)
		case "toml":
			r.writeFile(t, b)
		default:
			t.Errorf("line %d: blocks of %q are not known", b.Line, b.Lang)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// converse types what a block says, and looks at what is shown.
func (r *reader) converse(t *testing.T, b page.Block) {
	t.Helper()
	exchanges, err := page.Exchanges(b.Text)
	must(t, err)
	for _, e := range exchanges {
		terminal := r.terminals[e.Host]
		if terminal == nil {
			t.Fatalf("line %d: there is no host %q", b.Line, e.Host)
		}
		a, err := r.typeLine(terminal, e.Command)
		must(t, err)
		refused := strings.Contains(e.Shown, "omen-agent: error: ")
		if (a.code != 0) != refused {
			t.Fatalf("line %d: %s# %s\nended with code %d:\n%s%s", b.Line, e.Host, e.Command, a.code, a.stdout, a.stderr)
		}
		if refused {
			r.said = a.stderr
		}
		if e.Shown == "" {
			continue
		}
		for _, d := range page.DifferentScreen(e.Shown, a.shown()) {
			t.Errorf("line %d: %s# %s: %s", b.Line, e.Host, e.Command, d)
		}
	}
}

// writeFile writes a file that the page shows, under the name in its first line.
func (r *reader) writeFile(t *testing.T, b page.Block) {
	t.Helper()
	var host, name string
	if _, err := fmt.Sscanf(b.Text, "# %s %s", &host, &name); err != nil {
		t.Fatalf("line %d: the first line says no host and path: %v", b.Line, err)
	}
	h := r.world.Host(strings.TrimSuffix(host, ":"))
	if h == nil {
		t.Fatalf("line %d: there is no host %q", b.Line, host)
	}
	must(t, h.WriteFile(name, []byte(inThisWorld(h, b.Text)), 0o644))
}
