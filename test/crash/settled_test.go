// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"funlab.casa/omen/install/keylime"
)

// bench is a stage with what its tests need: a prepared host to copy, the parser,
// and what a host looks like after installations that nothing disturbed.
type bench struct {
	*stage
	base       string
	parser     *parser
	references []reference
}

// reference is a host on which all went well.
type reference struct {
	shape  []string
	before *set // the set before the last one
	proven bool // the installation that is disturbed elsewhere went well here
}

// setUp prepares the host and makes the references: the last set installed where
// the one that is disturbed elsewhere was never begun, where it was refused, and
// where it was proven.
func (g *stage) setUp(dir string) (*bench, error) {
	b := &bench{stage: g, base: filepath.Join(dir, "base"), parser: newParser(g.t)}
	if _, err := g.prepare(b.base); err != nil {
		return nil, err
	}
	acts := []Act{"", Refuse}
	if !g.refused {
		acts = append(acts, Install)
	}
	for _, act := range acts {
		r, err := b.reference(filepath.Join(dir, "reference"), act)
		if err != nil {
			return nil, fmt.Errorf("undisturbed %q: %w", act, err)
		}
		b.references = append(b.references, r)
	}
	return b, nil
}

func (b *bench) reference(root string, act Act) (r reference, err error) {
	h, err := b.hostFrom(b.base, root)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, h.remove()) }()
	r.before = b.standing()
	if act != "" {
		result := h.run(h.order(b.next, act))
		if (result.err != nil) != (act == Refuse) {
			return r, fmt.Errorf("%s: %w", b.next.name, result.err)
		}
		if act == Install {
			r.before, r.proven = b.next, true
		}
		if f, err := h.judge(b.parser); err != nil || f.set != r.before {
			return r, fmt.Errorf("%s: %v: %w", b.next.name, f, err)
		}
	}
	if result := h.run(h.order(b.last, Install)); result.err != nil {
		return r, fmt.Errorf("%s: %w", b.last.name, result.err)
	}
	if f, err := h.judge(b.parser); err != nil || f.set != b.last {
		return r, fmt.Errorf("%s: %v: %w", b.last.name, f, err)
	}
	r.shape, err = h.shape()
	return r, err
}

// allowed judges what is there while an installation has not ended: a whole set,
// the one that stood or a new one.
func (b *bench) allowed(h *host, fresh ...*set) (finding, error) {
	f, err := h.judge(b.parser)
	if err != nil {
		return f, err
	}
	stood := b.standing()
	switch {
	case f.part && !b.lower:
		return f, errors.New("files of the folder are missing")
	case f.set != nil && f.set != stood && !slices.Contains(fresh, f.set):
		return f, fmt.Errorf("%s is there", f.set.name)
	case f.set == nil && stood != nil && !b.gap():
		return f, errors.New("there was a set, and now there is nothing")
	case len(b.older) > 0 && f.drops != len(h.components()):
		return f, fmt.Errorf("%d drop-ins, there were %d", f.drops, len(h.components()))
	}
	return f, nil
}

// gap tells whether there is a moment without a set: where folder and link cannot
// be exchanged. Services are not touched in it, and the next start ends it.
func (b *bench) gap() bool { return b.inseparate || b.lower }

// settles installs the last set on a host on which the one before it was
// disturbed. It must go well and leave what it leaves on an undisturbed host: no
// temporary file, no unfinished generation, and as the way back a set that had
// been proven.
func (b *bench) settles(h *host, proven bool) error {
	if r := h.run(h.order(b.last, Install)); r.err != nil {
		return fmt.Errorf("the next installation: %w", r.err)
	}
	f, err := h.judge(b.parser)
	if err != nil || f.set != b.last || f.stands != byLink {
		return fmt.Errorf("after the next installation: %v: %w", f, err)
	}
	before, err := h.before()
	if err != nil {
		return fmt.Errorf("the generation before: %w", err)
	}
	shape, err := h.shape()
	if err != nil {
		return err
	}
	var differs error
	for _, r := range b.references {
		if r.before != before || r.proven && !proven {
			continue
		}
		d := difference(h.visible(r.shape), h.visible(shape))
		if d == nil {
			return nil
		}
		if differs == nil || len(d.Error()) < len(differs.Error()) {
			differs = d // the reference that is nearest
		}
	}
	if differs != nil {
		return fmt.Errorf("the generation before is %s; %w", nameOf(before), differs)
	}
	return fmt.Errorf("the generation before is %s, which was never proven", nameOf(before))
}

func nameOf(s *set) string {
	if s == nil {
		return "none"
	}
	return s.name
}

// before names the set that a roll-back would go to, nil when there is none.
func (h *host) before() (*set, error) {
	current, all, err := h.generations()
	if err != nil {
		return nil, err
	}
	at := slices.Index(all, current)
	if at < 0 || at != len(all)-1 {
		return nil, fmt.Errorf("%s is current, of %v", current, all)
	}
	if at == 0 {
		return nil, nil
	}
	name := "/var/lib/omen-agent/keylime/" + all[at-1]
	if h.dark && h.sealed { // its plain keys went with the power
		return h.whose(name)
	}
	return h.judgeSet(name)
}

// whose names the set of a generation by its certificates alone.
func (h *host) whose(name string) (*set, error) {
	for _, s := range h.known() {
		for certificate, leaf := range s.leaves {
			if text, _, err := h.read(name + "/" + certificate + ".crt"); err == nil && strings.HasPrefix(string(text), asPEM(leaf)) {
				return s, nil
			}
		}
	}
	return nil, fmt.Errorf("%s holds a certificate of no set", name)
}

// visible leaves out of a shape what a power cut takes whatever was installed.
func (h *host) visible(shape []string) []string {
	if !h.dark || !h.sealed {
		return shape
	}
	return slices.DeleteFunc(slices.Clone(shape), func(line string) bool {
		return strings.HasPrefix(line, "/run/") && strings.Contains(line, "/gen-1")
	})
}

func difference(want, got []string) error {
	var lines []string
	for _, line := range want {
		ofRefused := strings.Contains(line, "/refused") // is there to be looked at, as far as it is there
		if !slices.Contains(got, line) && !ofRefused {
			lines = append(lines, "missing: "+line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			lines = append(lines, "left: "+line)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "; "))
}

// serves wants the services to show the installed set, where there are any.
func (h *host) serves(s *set) error {
	for name, leaf := range s.leaves {
		profile, _ := keylime.Find(h.certificates()[name])
		if profile.Program == "" {
			continue
		}
		if err := shows(fmt.Sprintf("127.0.0.1:%d", h.ports[name]), leaf); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
