// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify/provertest"
)

// lateCommit is a storage whose commits land although the caller has gone, as
// OpenBao's do.
type lateCommit struct {
	logical.TransactionalStorage
	hold  chan struct{} // closed: commits end
	began chan struct{} // a commit has begun; nil: nobody asks
}

type lateTx struct {
	logical.Transaction
	*lateCommit
	late bool
}

func (l *lateCommit) BeginTx(ctx context.Context) (logical.Transaction, error) {
	tx, err := l.TransactionalStorage.BeginTx(ctx)
	return &lateTx{Transaction: tx, lateCommit: l}, err
}

func (l *lateTx) Rollback(ctx context.Context) error {
	if l.late {
		return nil // too late
	}
	return l.Transaction.Rollback(ctx)
}

func (l *lateTx) Commit(ctx context.Context) error {
	hold := l.hold
	if l.began != nil {
		l.began <- struct{}{}
	}
	select {
	case <-hold:
		return l.Transaction.Commit(ctx)
	case <-ctx.Done():
		l.late = true
		go func() {
			<-hold
			_ = l.Transaction.Commit(context.Background())
		}()
		return ctx.Err()
	}
}

// An operator who gives up waiting has quarantined the host all the same: what is
// kept in memory is not older than what is stored.
func TestOperatorWhoGivesUp(t *testing.T) {
	s := &lateCommit{TransactionalStorage: storages(t)["transactional"].(logical.TransactionalStorage), hold: make(chan struct{})}
	close(s.hold)
	w := newWorld(t, s)
	w.in(w.spire, "keylime")
	s.hold, s.began = make(chan struct{}), make(chan struct{})
	gaveUp, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := w.b.HandleRequest(gaveUp, &logical.Request{
			Operation: logical.UpdateOperation, Path: "host/spire/quarantine", Storage: s,
		})
		done <- err
	}()
	<-s.began
	cancel()
	close(s.hold)
	check(t, <-done)
	s.began = nil
	w.out(w.spire, "keylime", attest.RuleHostDisabled)
}

// A write that outlasts our own patience may land at any time: until a later one
// has ended, what it touches is read from the storage.
func TestWriteThatOutlastsUs(t *testing.T) {
	s := &lateCommit{TransactionalStorage: storages(t)["transactional"].(logical.TransactionalStorage), hold: make(chan struct{})}
	close(s.hold)
	w := newWorld(t, s)
	w.in(w.spire, "keylime")
	s.hold = make(chan struct{})
	w.b.writeTimeout = time.Millisecond
	if _, err := w.request(logical.UpdateOperation, "host/spire/quarantine", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	w.in(w.spire, "keylime") // it has not landed, and nobody was told that it had
	close(s.hold)
	for deadline := time.Now().Add(10 * time.Second); ; {
		h, err := load[host](t.Context(), s, hostPrefix+"spire")
		check(t, err)
		if h.State == hostQuarantined {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the write never landed")
		}
	}
	w.out(w.spire, "keylime", attest.RuleHostDisabled)
}

// at answers a challenge with counters of the test's choosing.
func (w *world) at(c attest.Challenge, clock uint64, reset uint32) error {
	w.t.Helper()
	m := attest.LoginRequest{V: 1, Role: "keylime", Audience: audience}
	_, err := w.login(w.spire.AnswerWith(w.t, c, m, func(a *provertest.Attestation) { a.Clock, a.Reset = clock, reset }))
	return err
}

// A copy that always asks for its next challenge before it ends the login before
// gets the excuse of an overlap once, not for ever.
func TestOverlapExcusesOnce(t *testing.T) {
	w := newPlainWorld(t)
	step := func() { w.clock.Add(int64(time.Second)) }
	early := w.pose(w.spire, "keylime")
	step()
	check(t, w.at(w.pose(w.spire, "keylime"), 100_000, 3))
	step()
	next := w.pose(w.spire, "keylime")
	step()
	check(t, w.at(early, 1_000, 3))
	wantRefusal(t, w.at(next, 2_000, 3), attest.RuleClone)
}

// A host that boots while a login of it is under way is no clone.
func TestBootDuringLoginIsNoClone(t *testing.T) {
	w := newPlainWorld(t)
	check(t, w.at(w.pose(w.spire, "keylime"), 1_000, 3))
	w.clock.Add(int64(time.Second))
	old := w.pose(w.spire, "keylime")
	w.clock.Add(int64(time.Second))
	check(t, w.at(w.pose(w.spire, "keylime"), 2_000, 4))
	wantRefusal(t, w.at(old, 1_500, 3), attest.RuleState)
	wantRefusal(t, w.at(w.pose(w.spire, "keylime"), 1_600, 3), attest.RuleClone)
}

// A vendor that is believed no more ends challenges that are out.
func TestConfigurationChangedSinceTheChallenge(t *testing.T) {
	w := newPlainWorld(t)
	w.in(w.spire, "keylime")
	c := w.pose(w.spire, "keylime")
	w.write("config", map[string]any{"virtual_roots": ""})
	_, err := w.login(w.spire.Answer(t, c, "keylime", audience))
	wantRefusal(t, err, attest.RuleState)
}

// A write that panics or takes too long is an error for those who wait for it, and
// the end of nobody else.
func TestGroupThatFails(t *testing.T) {
	slow := errors.Join(context.DeadlineExceeded, errBroken)
	for name, row := range map[string]struct {
		fail  func() error
		calls int
	}{
		"panic":    {func() error { panic("disk on fire") }, 3}, // together, then each for itself
		"timeout":  {func() error { return slow }, 1},           // nobody waits for it twice
		"storage":  {func() error { return errBroken }, 3},
		"conflict": {func() error { return errors.New("transaction commit failed") }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			g := &group{change: func(context.Context, logical.Storage, func(logical.Storage) error) error {
				calls++
				return row.fail()
			}}
			waiting := []*grouped{{done: make(chan error, 1)}, {done: make(chan error, 1)}}
			g.queue, g.running = waiting, true
			g.run()
			for _, one := range waiting {
				if err := <-one.done; err == nil || strings.Contains(err.Error(), "nil pointer") {
					t.Errorf("waiting login hears %v", err)
				}
			}
			if calls != row.calls {
				t.Errorf("%d writes, want %d", calls, row.calls)
			}
		})
	}
}
