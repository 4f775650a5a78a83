// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// faults are what a bad disk answers, with the words for people.
var faults = map[string]string{
	"ENOSPC": "no space left on device",
	"EIO":    "input/output error",
	"EROFS":  "read-only file system",
}

// TestRefusedAtEveryCall lets the kernel refuse each file-system call of an
// installation once, looks at what is there, and installs again.
func TestRefusedAtEveryCall(t *testing.T) {
	for offset, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			b, dir := newBench(t, s)
			var cases []refused
			for _, c := range b.plan(t, dir) {
				for _, errno := range []string{"ENOSPC", "EIO", "EROFS"} {
					cases = append(cases, refused{c, errno})
				}
			}
			stride := s.stride(strideError)
			if s.services && long { // each starts two services four times
				stride = 7
			}
			cases = every(cases, stride, offset)
			sweep(t, dir, cases, b.refuse)
			t.Logf("refused %d times", len(cases))
		})
	}
}

type refused struct {
	call
	errno string
}

func (r refused) String() string { return r.errno + " for " + r.call.String() }

func (b *bench) refuse(c refused, root string) (err error) {
	h, err := b.hostFrom(b.base, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.remove()) }()
	r, calls, err := h.trace(h.order(b.next, b.act()), "-e", fmt.Sprintf("inject=%s:error=%s:when=%d", c.name, c.errno, c.ordinal))
	if err != nil {
		return err
	}
	hit := slices.ContainsFunc(calls, func(made call) bool {
		return made.name == c.name && made.ordinal == c.ordinal && made.errno == c.errno
	})
	if !hit && !b.services {
		return errors.New("the call was not made")
	}
	f, err := b.allowed(h, b.next)
	if err != nil {
		return fmt.Errorf("%w%s", err, r.said())
	}
	if err := b.judgeWords(c, r, f, hit); err != nil {
		return err
	}
	if err := b.settles(h, h.proven(r.stdout)); err != nil {
		return fmt.Errorf("%v was there; %w%s", f, err, r.said())
	}
	return h.serves(b.last)
}

// judgeWords wants a message that says what is wrong, and nothing half done after
// it: no gap, and a new set only when it was proven or could not be taken back.
func (b *bench) judgeWords(c refused, r result, f finding, hit bool) error {
	switch {
	case r.killed || strings.Contains(r.stderr, "goroutine "):
		return errors.New("it broke down" + r.said())
	case f.set == nil && b.standing() != nil || f.part:
		return fmt.Errorf("it ended with %v%s", f, r.said())
	case r.err == nil && b.refused:
		return errors.New("a set that was to be refused is installed")
	case r.err == nil && f.set != b.next:
		return fmt.Errorf("it reports success, and %v is there", f)
	case r.err != nil && hit && !strings.Contains(r.stderr, faults[c.errno]) && !b.refused && !b.services:
		return errors.New("the message does not say why" + r.said())
	}
	return nil
}
