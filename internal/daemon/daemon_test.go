// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
)

func away(time.Time) error {
	return &agent.StepError{Step: agent.StepChallenge, Err: &bao.Error{Op: "challenge", Kind: bao.KindUnreachable, Message: "no route"}}
}

func denied(time.Time) error {
	return &agent.StepError{Step: agent.StepLogin, Err: &bao.Error{Op: "login", Kind: bao.KindRefused, Status: 403, Rule: attest.RuleHostUnknown}}
}

// A month without anybody: thirty lifetimes, and no attempt between.
func TestRenewsWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued = time.Now()
		m.run(Daemon{}, func() { after(30 * 16 * time.Hour) })
		if least, longest := m.gaps(); len(m.attempts) != 30 || least != 16*time.Hour || longest != 16*time.Hour {
			t.Errorf("%d attempts, %s to %s apart", len(m.attempts), least, longest)
		}
	})
}

// The server can want to see a host sooner, never more often than once a minute.
func TestServersHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.hint = time.Second
		m.run(Daemon{}, func() { after(time.Hour) })
		if least, _ := m.gaps(); least < time.Minute || len(m.attempts) < 60 {
			t.Errorf("%d attempts, %s apart", len(m.attempts), least)
		}
	})
}

// OpenBao away for twelve hours with certificates for twenty-four: it is asked now and
// then, services start, and it is noticed soon when it is back.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued = time.Now().Add(-15 * time.Hour)
		back := time.Now().Add(12 * time.Hour)
		m.answer = func(now time.Time) error {
			if now.Before(back) {
				return away(now)
			}
			return nil
		}
		m.run(Daemon{Hold: time.Minute}, func() { after(15 * time.Hour) })
		least, longest := m.gaps()
		if least < time.Minute || longest > 31*time.Minute || len(m.attempts) < 20 || len(m.attempts) > 300 {
			t.Errorf("%d attempts, %s to %s apart", len(m.attempts), least, longest)
		}
		if m.issued.Before(back) || m.issued.Sub(back) > 31*time.Minute {
			t.Errorf("renewed %s after it was back", m.issued.Sub(back))
		}
		if told := strings.Count(m.log.String(), "renewal failed"); told != 1 {
			t.Errorf("the same error is told %d times", told)
		}
	})
}

// Near the end of what is in use attempts come closer.
func TestAttemptsComeCloserAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.life, m.issued, m.answer = time.Hour, time.Now(), away
		m.run(Daemon{}, func() { after(time.Hour) })
		last := m.attempts[len(m.attempts)-1]
		if left := m.issued.Add(m.life).Sub(last); left > 3*time.Minute || len(m.attempts) < 5 {
			t.Errorf("%d attempts, the last one %s before the end", len(m.attempts), left)
		}
	})
}

// Hosts that failed together come back apart.
func TestFleetComesBackSpread(t *testing.T) {
	quarters := [4]int{}
	for range 2000 {
		p := newPace(renewalFailed, hint)
		var wait time.Duration
		for range 10 {
			wait = p.wait.NextBackOff()
		}
		quarters[min(wait/(most/4), 3)]++
	}
	for _, count := range quarters {
		if count < 400 || count > 600 {
			t.Errorf("waits are spread %v", quarters)
			break
		}
	}
}

func asked(wait time.Duration) error {
	return &bao.Error{Op: "login", Kind: bao.KindBusy, Status: 429, RetryAfter: wait}
}

// A final no is asked for again each hour, and told once.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.answer = denied
		m.run(Daemon{Hold: time.Minute}, func() { after(24 * time.Hour) })
		if least, longest := m.gaps(); least != time.Hour || longest != time.Hour {
			t.Errorf("asked again after %s to %s", least, longest)
		}
		if told := strings.Count(m.log.String(), "refused; an operator"); told != 1 {
			t.Errorf("told %d times:\n%s", told, m.log.String())
		}
	})
}

// What must be told is: another error, and one that comes again after a success.
func TestErrorsAreToldWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		number := 0
		m.answer = func(time.Time) error {
			number++
			if number == 5 {
				m.change(func() { m.found.Renew = "again" })
				return nil
			}
			return fmt.Errorf("failure %d", number/3)
		}
		m.run(Daemon{}, func() { after(10 * time.Hour) })
		if told := strings.Count(m.log.String(), "failure 1"); told != 1 {
			t.Errorf("told %d times:\n%s", told, m.log.String())
		}
	})
}

func TestRetryAfterAndApproval(t *testing.T) {
	pending := &bao.Error{Op: "login", Kind: bao.KindRefused, Rule: attest.RulePending}
	held := &agent.StepError{Step: agent.StepProbe, Err: errors.New("not served")}
	for _, row := range []struct {
		err          error
		left         time.Duration
		least, most_ time.Duration
	}{
		{pending, 0, afterPending, afterPending},
		{held, 0, time.Minute, firstMost},
		{errors.New("disk full"), 0, time.Minute, firstMost},
		{errors.New("disk full"), 4 * time.Second, time.Minute, time.Minute},
		{denied(time.Now()), time.Second, time.Hour, time.Hour},
		{asked(20 * time.Minute), 0, 20 * time.Minute, 20 * time.Minute},
		{asked(18 * time.Hour), 0, time.Hour, time.Hour},
	} {
		got := newPace(renewalFailed, hint).failed(slog.New(slog.DiscardHandler), row.err, row.left)
		if got < row.least || got > row.most_ {
			t.Errorf("%v with %s left: %s", row.err, row.left, got)
		}
	}
}

// What was installed and not served is held back, and no longer.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.held = time.Now().Add(time.Hour)
		begin := time.Now()
		m.run(Daemon{}, func() { after(2 * time.Hour) })
		if len(m.attempts) != 1 || m.attempts[0].Sub(begin) != time.Hour {
			t.Errorf("attempts %v from %v", m.attempts, begin)
		}
	})
}

// What a look finds is renewed for at once, and until it succeeds.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued = time.Now()
		failures := 3
		m.answer = func(now time.Time) error {
			if failures--; failures >= 0 {
				return away(now)
			}
			return nil
		}
		m.run(Daemon{}, func() {
			after(time.Hour)
			if len(m.attempts) != 0 {
				t.Errorf("attempts %v", m.attempts)
			}
			m.change(func() { m.found.Renew = "the CAs have changed" })
			after(lookAgain + time.Hour)
		})
		if len(m.attempts) != 4 || m.issued.IsZero() {
			t.Errorf("attempts %v", m.attempts)
		}
	})
}

// What somebody mends by hand is not renewed for any more.
func TestNeedThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued, m.answer = time.Now(), away
		m.found.Renew = "installed files are spoiled"
		m.run(Daemon{}, func() {
			after(30 * time.Second)
			m.change(func() { m.found.Renew, m.answer = "", nil })
			after(3 * time.Hour)
		})
		if len(m.attempts) != 1 {
			t.Errorf("attempts %v", m.attempts)
		}
	})
}

// What cannot be read is renewed for, at the pace of what fails, and told once.
func TestNoStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.broken, m.answer = errors.New("input/output error"), away
		m.run(Daemon{Hold: time.Minute}, func() {
			after(time.Hour)
			m.change(func() { m.broken, m.answer = nil, nil })
			after(time.Hour)
		})
		if least, _ := m.gaps(); least < time.Minute || len(m.attempts) < 3 || m.issued.IsZero() {
			t.Errorf("attempts %v", m.attempts)
		}
	})
}

// What only another process can mend ends this one when it is looked at next, also while
// nothing is due; services may have started before.
func TestFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued = time.Now()
		began, came := m.issued, errors.New("a TPM came")
		d := Daemon{
			Load: func() (Host, error) { return m, nil }, Hold: time.Hour, Clock: m, Supervisor: supervisor{m}, Log: slog.New(slog.DiscardHandler), Hint: hint,
			Fatal: func() error {
				if time.Since(began) < time.Hour {
					return nil
				}
				return came
			},
		}
		if err := d.Run(t.Context()); !errors.Is(err, came) || len(m.attempts) != 0 || m.words() != "ready stopping" {
			t.Errorf("%v, attempts %v, told %s", err, m.attempts, m.words())
		}
		if took := time.Since(began); took > time.Hour+lookAgain {
			t.Errorf("it took %s", took)
		}
	})
}

// SIGTERM in the middle ends it, whatever the attempt came to.
func TestStopDuringAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.answer = func(now time.Time) error {
			time.Sleep(time.Minute)
			return away(now)
		}
		m.run(Daemon{Hold: time.Hour}, func() { after(time.Second) })
		if strings.Contains(m.log.String(), "level=ERROR") || m.words() != "stopping" {
			t.Errorf("told %s:\n%s", m.words(), m.log.String())
		}
	})
}

// A clock that shows a time before the certificates is waited for; attempts go on at
// long intervals, each of which says why it fails.
func TestClockBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued = time.Now()
		m.ahead = -365 * 24 * time.Hour
		m.found.Renew = "services run with older certificates"
		m.run(Daemon{Hold: 2 * time.Minute}, func() {
			after(5 * time.Minute)
			if len(m.attempts) != 0 || m.words() != "clock ready" {
				t.Errorf("attempts %v, told %s", m.attempts, m.words())
			}
			m.setClock(365 * 24 * time.Hour)
			synctest.Wait()
			if len(m.attempts) != 1 {
				t.Errorf("attempts %v after the clock was put right", m.attempts)
			}
		})
	})
}

func TestClockThatStaysWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, why := range []string{"spoiled", ""} { // nothing is due by the clock that is wrong
			m := newMachine(t)
			m.issued, m.answer = time.Now(), away
			m.ahead = -365 * 24 * time.Hour
			m.found.Renew = why
			m.run(Daemon{Hold: time.Minute}, func() { after(3 * time.Hour) })
			if least, _ := m.gaps(); least < time.Minute || len(m.attempts) < 3 {
				t.Errorf("%q: %d attempts, %s apart", why, len(m.attempts), least)
			}
		}
	})
}

// A clock that jumps, or a machine that slept, is renewed for at once when that is due.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued = time.Now()
		m.run(Daemon{}, func() {
			after(time.Minute)
			m.setClock(17 * time.Hour)
			synctest.Wait()
			if len(m.attempts) != 1 {
				t.Errorf("attempts %v", m.attempts)
			}
			m.setClock(-17 * time.Hour) // never twice within a minute
			m.setClock(50 * time.Hour)
			after(59 * time.Second)
			if len(m.attempts) != 1 {
				t.Errorf("attempts %v", m.attempts)
			}
		})
	})
}

// A clock that is set back between reading it and waiting by it makes no wait longer.
func TestTimerThatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.issued, m.late = time.Now(), 365*24*time.Hour
		m.run(Daemon{}, func() { after(16*time.Hour + lookAgain) })
		if len(m.attempts) != 1 {
			t.Errorf("attempts %v", m.attempts)
		}
	})
}

// A new configuration counts at once; one that is wrong does not, and what was goes on.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, other := newMachine(t), newMachine(t)
		m.issued, other.issued = time.Now(), time.Now()
		other.found.Renew = "the configuration has changed"
		loads := []func() (Host, error){
			func() (Host, error) { return m, nil },
			func() (Host, error) { return nil, &config.Error{Err: errors.New("unknown key"), Hint: "correct it"} },
			func() (Host, error) { return other, nil },
		}
		hup := make(chan os.Signal)
		load := func() (Host, error) { next := loads[0]; loads = loads[1:]; return next() }
		m.run(Daemon{Load: load, Reload: hup}, func() {
			hup <- syscall.SIGHUP
			synctest.Wait()
			if !strings.Contains(m.log.String(), "remedy=\"correct it\"") || len(other.attempts) > 0 {
				t.Errorf("log:\n%s", m.log.String())
			}
			hup <- syscall.SIGHUP
			after(2 * time.Minute)
		})
		if len(other.attempts) != 1 || len(m.attempts) != 0 {
			t.Errorf("%d attempts by the new, %d by the old", len(other.attempts), len(m.attempts))
		}
		if m.words() != "ready reloading ready reloading ready stopping" {
			t.Errorf("told %s", m.words())
		}
	})
}

func TestConfigurationThatIsWrongAtTheStart(t *testing.T) {
	m := newMachine(t)
	wrong := errors.New("wrong")
	d := Daemon{Load: func() (Host, error) { return nil, wrong }, Clock: m, Supervisor: supervisor{m}}
	if err := d.Run(t.Context()); !errors.Is(err, wrong) || m.words() != "" {
		t.Errorf("%v, told %s", err, m.words())
	}
}
