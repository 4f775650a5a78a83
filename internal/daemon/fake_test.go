// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
)

// These tests run days in a moment: the real host could not, whose TPM, server and
// services go by the clock outside.

// machine is a host, its clock, and who is told.
type machine struct {
	t        *testing.T
	mutex    sync.Mutex
	issued   time.Time // when the certificate was made; zero: nothing is installed
	life     time.Duration
	answer   func(at time.Time) error // of a renewal
	found    agent.Found
	held     time.Time
	broken   error // of Status
	attempts []time.Time
	switched func()
	hint     time.Duration

	ahead time.Duration // of the clock
	late  time.Duration // its timers are
	set   chan struct{} // closed when the clock is set

	started time.Time
	told    []string
	log     bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	return &machine{t: t, life: 24 * time.Hour, set: make(chan struct{}), started: time.Now()}
}

func (m *machine) Now() time.Time {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return time.Now().Add(m.ahead)
}

func (m *machine) Elapsed() time.Duration { return time.Since(m.started) }

func (m *machine) Until(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(t.Sub(m.Now()) + m.late)
	defer timer.Stop()
	m.mutex.Lock()
	set := m.set
	m.mutex.Unlock()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-set:
	}
	return nil
}

// setClock puts the clock forward, or back.
func (m *machine) setClock(by time.Duration) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.ahead += by
	close(m.set)
	m.set = make(chan struct{})
}

// change changes what the host is while the daemon runs.
func (m *machine) change(act func()) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	act()
}

func (m *machine) Look(context.Context) (*agent.Found, error) {
	status, err := m.Status()
	m.mutex.Lock()
	defer m.mutex.Unlock()
	found := m.found
	found.Status = status
	return &found, err
}

func (m *machine) Status() (*agent.Status, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	s := &agent.Status{Certificates: []agent.Certificate{{}}, HeldUntil: m.held}
	if !m.issued.IsZero() {
		c := install.Certificate{Name: "verifier", Serial: "01", NotBefore: m.issued, NotAfter: m.issued.Add(m.life)}
		s.Certificates[0] = agent.Certificate{Certificate: c}
		s.NextRenewal = m.issued.Add(m.life / 3 * 2)
	}
	return s, m.broken
}

func (m *machine) RenewDue(ctx context.Context) (*agent.Outcome, error) {
	m.attempts = append(m.attempts, time.Now())
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.answer != nil {
		if err := m.answer(time.Now()); err != nil {
			return nil, err
		}
	}
	now := m.Now()
	m.change(func() { m.found, m.issued = agent.Found{}, now })
	m.switched()
	o := &agent.Outcome{Host: "spire"}
	if m.hint > 0 {
		o.RenewBy = m.Now().Add(m.hint)
	}
	return o, nil
}

func (m *machine) OnSwitch(ready func()) { m.switched = ready }

// What the supervisor is told, without the lines for people.
func (m *machine) Ready()           { m.tell("ready") }
func (m *machine) Reloading()       { m.tell("reloading") }
func (m *machine) Stopping()        { m.tell("stopping") }
func (m *machine) tell(word string) { m.mutex.Lock(); m.told = append(m.told, word); m.mutex.Unlock() }

type supervisor struct{ *machine }

func (s supervisor) Status(line string) {
	if strings.Contains(line, "waiting for the clock") {
		s.tell("clock")
	}
}
func (s supervisor) Alive() {}

func (m *machine) words() string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return strings.Join(m.told, " ")
}

// run runs the daemon while act happens, in time that takes none.
func (m *machine) run(d Daemon, act func()) {
	m.t.Helper()
	ctx, stop := context.WithCancel(m.t.Context())
	d.Clock, d.Supervisor = m, supervisor{m}
	d.Log, d.Hint = slog.New(slog.NewTextHandler(&m.log, nil)), hint
	if d.Load == nil {
		d.Load = func() (Host, error) { return m, nil }
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	synctest.Wait()
	act()
	stop()
	if err := <-ended; err != nil {
		m.t.Errorf("run: %v", err)
	}
	if !strings.HasSuffix(m.words(), "stopping") {
		m.t.Errorf("told: %s", m.words())
	}
}

// hint is a remedy as the command knows it.
func hint(err error) string {
	var faulty *config.Error
	if errors.As(err, &faulty) {
		return faulty.Hint
	}
	return remedy.Of(err)
}

// after lets time go by.
func after(length time.Duration) {
	time.Sleep(length)
	synctest.Wait()
}

// gaps are the times between attempts.
func (m *machine) gaps() (least, longest time.Duration) {
	for i := 1; i < len(m.attempts); i++ {
		gap := m.attempts[i].Sub(m.attempts[i-1])
		if least == 0 || gap < least {
			least = gap
		}
		longest = max(longest, gap)
	}
	return least, longest
}
