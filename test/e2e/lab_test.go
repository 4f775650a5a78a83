// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/svid"
	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) {
	code, done := svid.Play()
	if !done {
		code, done = world.Enter()
	}
	if !done {
		code = m.Run()
		if err := common.close(); err != nil {
			fmt.Fprintln(os.Stderr, "close the shared world:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// common is the world that tests share: all worlds have the same addresses, so
// there is one at a time.
var common keeper

type keeper struct{ lab *lab }

func (k *keeper) close() error {
	if k.lab == nil {
		return nil
	}
	s := k.lab.Story
	k.lab = nil
	return s.Close()
}

// A lab is a world in which the story has come to its working state: OpenBao,
// verifier, registrar and tenant on spire, an agent on auth, all with mTLS. Tests
// leave these two as they are and add hosts of their own.
type lab struct {
	*story.Story
	hosts int       // added so far
	born  time.Time // nothing in it is older
}

// shared is the shared lab, made by the first test that asks.
func shared(t *testing.T) (context.Context, *lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	if common.lab == nil {
		l := &lab{Story: &story.Story{}, born: time.Now()}
		for _, step := range story.Steps()[:6] {
			if _, err := step.Run(ctx, l.Story); err != nil {
				t.Fatalf("%s: %v\n%s", step.Name, err, logs(l.Story))
			}
		}
		common.lab = l
	}
	l := common.lab
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(logs(l.Story))
		}
	})
	return ctx, l
}

// ownStory is a story in a world that is the test's alone. The shared world
// ends for it.
func ownStory(t *testing.T) (context.Context, *story.Story) {
	t.Helper()
	if err := common.close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	s := &story.Story{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(logs(s))
		}
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, s
}

func logs(s *story.Story) string {
	if s.World == nil {
		return ""
	}
	return s.World.Logs(15)
}

// play runs one step of a story as a subtest; the test ends with the first that
// goes wrong.
func play(ctx context.Context, t *testing.T, s *story.Story, step story.Step) {
	t.Helper()
	ok := t.Run(step.Name, func(t *testing.T) {
		told, err := step.Run(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(told)
	})
	if !ok {
		t.FailNow()
	}
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check is must for a call with a result: check(h.ReadFile(path))(t).
func check[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return value
	}
}
