// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
)

// TestKilledAtEveryCall kills an installation before each of its file-system
// calls, looks at what is there, and starts the next one.
func TestKilledAtEveryCall(t *testing.T) {
	for offset, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			b, dir := newBench(t, s)
			calls := b.plan(t, dir)
			if !long || s.services { // what changes nothing leaves the disk as it was for the next call
				calls = changing(calls)
			}
			calls = every(calls, s.stride(strideKill), offset)
			present := make([]bool, len(calls))
			cases := make([]numbered, len(calls))
			for at, c := range calls {
				cases[at] = numbered{c, at}
			}
			sweep(t, dir, cases, func(c numbered, root string) error {
				f, err := b.kill(root, c.call)
				present[c.at] = f.set != nil
				return err
			})
			for at := 1; at < len(present); at++ {
				if present[at-1] && !present[at] && !s.refused && !b.gap() {
					t.Errorf("a set was there before %v, and none before %v", calls[at-1], calls[at])
				}
			}
			t.Logf("killed before %d calls", len(calls))
		})
	}
}

type numbered struct {
	call
	at int
}

func newBench(t *testing.T, s scenario) (*bench, string) {
	t.Helper()
	dir := filepath.Join(space(), t.Name())
	b, err := s.stage(t).setUp(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// plan runs the installation undisturbed and lists its calls about files of the
// host.
func (b *bench) plan(t *testing.T, dir string) []call {
	t.Helper()
	h, err := b.hostFrom(b.base, filepath.Join(dir, "plan"))
	if err != nil {
		t.Fatal(err)
	}
	r, all, err := h.trace(h.order(b.next, b.act()))
	if err = errors.Join(err, h.remove()); err != nil || (r.err != nil) != b.refused {
		t.Fatalf("undisturbed: %v, %v", r.err, err)
	}
	var calls []call
	for _, c := range all {
		if c.within(h.root) {
			calls = append(calls, c)
		}
	}
	if len(changing(calls)) < 20 {
		t.Fatalf("only %d calls change the disk: strace does not see the installation", len(changing(calls)))
	}
	return calls
}

func changing(calls []call) []call {
	var kept []call
	for _, c := range calls {
		if c.changes() {
			kept = append(kept, c)
		}
	}
	return kept
}

func (b *bench) kill(root string, at call) (f finding, err error) {
	h, err := b.hostFrom(b.base, root)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, h.remove()) }()
	r, calls, err := h.killAt(h.order(b.next, b.act()), at)
	if err != nil {
		return f, err
	}
	// How often a service is asked whether it is there depends on time.
	if last := calls[len(calls)-1]; !b.services && (!r.killed || last.name != at.name || last.errno != "?") {
		return f, fmt.Errorf("not killed there but at %v: %w", last, r.err)
	}
	if f, err = b.allowed(h, b.next); err != nil {
		return f, err
	}
	if err := h.waitForServices(); err != nil {
		return f, err
	}
	if err := b.settles(h, h.proven(r.stdout)); err != nil {
		return f, fmt.Errorf("%v was there; %w", f, err)
	}
	return f, h.serves(b.last)
}

func (h *host) killAt(o Order, at call) (result, []call, error) {
	return h.trace(o, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", at.name, at.ordinal))
}

// TestKilledTwice kills an installation, and the next one too, which has to mend
// what the first has left.
func TestKilledTwice(t *testing.T) {
	for offset, s := range scenarios {
		if s.services {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			b, dir := newBench(t, s)
			calls := changing(b.plan(t, dir))
			var cases []twice
			for _, first := range calls {
				for _, second := range calls {
					cases = append(cases, twice{first, second})
				}
			}
			cases = every(cases, strideTwice, offset)
			sweep(t, dir, cases, b.killTwice)
			t.Logf("killed twice %d times", len(cases))
		})
	}
}

type twice struct{ first, second call }

func (c twice) String() string { return c.first.String() + ", then " + c.second.String() }

func (b *bench) killTwice(c twice, root string) (err error) {
	h, err := b.hostFrom(b.base, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.remove()) }()
	first, _, err := h.killAt(h.order(b.next, b.act()), c.first)
	if err != nil {
		return err
	}
	proven := h.proven(first.stdout)
	second, _, err := h.killAt(h.order(b.last, Install), c.second)
	if err != nil {
		return err
	}
	f, err := b.allowed(h, b.next, b.last)
	if err != nil {
		return err
	}
	if h.proven(second.stdout) { // a third installation of the same set would show nothing
		return nil
	}
	if err := b.settles(h, proven); err != nil {
		return fmt.Errorf("%v was there; %w", f, err)
	}
	return nil
}
