// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestPowerCutBetweenAnyTwoCalls replays the calls of an installation onto a
// disk that forgets what was not fsynced, cuts the power after each, and looks at
// every disk that may be found then.
//
// The number of disks is bounded by the calls: see disk.outcomes. Disks that look
// alike are judged once, wherever the power was cut.
func TestPowerCutBetweenAnyTwoCalls(t *testing.T) {
	for offset, s := range scenarios {
		if s.services { // they are processes, and do not survive a power cut
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			b, dir := newBench(t, s)
			cases := b.cuts(t, dir)
			all := len(cases)
			cases = every(cases, s.stride(strideCut), offset)
			sweep(t, dir, cases, b.lose)
			t.Logf("%d of %d disks", len(cases), all)
		})
	}
}

// powerCut is a disk that is found after the power was cut.
type powerCut struct {
	outcome
	after call
	said  string // what the installation had printed
	ended bool   // the program had ended
}

func (p powerCut) String() string { return "power cut after " + p.after.String() + ": " + p.how }

// cuts lists the disks that a power cut can leave, each once.
func (b *bench) cuts(t *testing.T, dir string) []powerCut {
	t.Helper()
	root := filepath.Join(dir, "plan")
	h, err := b.hostFrom(b.base, root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := readDisk(root)
	if err != nil {
		t.Fatal(err)
	}
	r, calls, err := h.trace(h.order(b.next, b.act()))
	if err = errors.Join(err, h.remove()); err != nil || (r.err != nil) != b.refused {
		t.Fatalf("undisturbed: %v, %v", r.err, err)
	}
	seen := map[string]bool{}
	var cases []powerCut
	said := ""
	for at, c := range calls {
		if err := d.replay(c, root); err != nil {
			t.Fatal(err)
		}
		if c.name == "write" && !c.within(root) {
			said += c.args[1]
		}
		ended := at == len(calls)-1
		if !ended && (!c.within(root) || !c.changes() && !c.keeps()) {
			continue // the disks are those of the call before
		}
		for _, o := range d.outcomes() {
			if key := fmt.Sprint(o.key(), said, ended); !seen[key] {
				seen[key] = true
				cases = append(cases, powerCut{o, c, said, ended})
			}
		}
	}
	if b.sameAsSeen(t, d) {
		return cases
	}
	return nil
}

// sameAsSeen wants the replay to end where the installation did.
func (b *bench) sameAsSeen(t *testing.T, d *disk) bool {
	t.Helper()
	root := filepath.Join(filepath.Dir(b.base), "replayed")
	im := d.after(func(int) bool { return true }, kept)
	h := b.host(root)
	err := im.write(root)
	if err == nil && b.sealed {
		err = h.run(h.order(b.next, Unseal)).err
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.judge(b.parser)
	want := b.next
	if b.refused {
		want = b.standing()
	}
	if err = errors.Join(err, h.removeFiles()); err != nil || f.set != want {
		t.Errorf("replayed: %v, %v", f, err)
		return false
	}
	return true
}

func (b *bench) lose(p powerCut, root string) (err error) {
	h := b.host(root)
	h.dark = true
	if err := p.write(root); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.remove()) }()
	if b.lower {
		if err := h.cover(); err != nil {
			return err
		}
	}
	if err := h.boot(); err != nil {
		return err
	}
	f, err := b.allowed(h, b.next)
	if err != nil {
		return fmt.Errorf("%v: %w", f, err)
	}
	if p.ended && !b.refused && f.set != b.next {
		return fmt.Errorf("the installation had ended, and %v is there", f)
	}
	if err := b.settles(h, h.proven(p.said)); err != nil {
		return fmt.Errorf("%v was there; %w", f, err)
	}
	return nil
}

// boot gives sealed keys out, as a host does before its services start.
func (h *host) boot() error {
	if !h.sealed {
		return nil
	}
	r := h.run(h.order(h.last, Unseal))
	if r.err == nil || strings.Contains(r.stderr, "not installed") {
		return nil
	}
	return fmt.Errorf("unseal: %w", r.err)
}
