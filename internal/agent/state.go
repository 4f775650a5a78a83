// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/internal/alarm"
)

// observe asks how this host is: what is installed, whether it is served (a handshake
// each, nothing more; Verify asks everything), what the TPM counts. It tells the
// Observer, and logs every alarm that is new or more urgent than before. It renews
// nothing, takes no lock, and takes some seconds where services do not answer. Strangers
// are the certificates instead of which services serve something else.
func (a *Agent) observe(ctx context.Context) (status *Status, strangers []string, err error) {
	a.setRight(ctx)
	if status, err = a.Status(); err != nil {
		return nil, nil, err
	}
	state := State{Time: a.now(), Status: status, Served: map[string]bool{}, TPM: a.condition(ctx)}
	alarms, strangers := a.servedAlarms(ctx, state.Served)
	state.Alarms = mostUrgentFirst(append(alarms, status.Alarms...))
	if state.TPM != nil && state.TPM.LockedOut {
		state.Alarms = mostUrgentFirst(append(state.Alarms, Alarm{Kind: AlarmLockout, Level: alarm.Warning,
			Reason: fmt.Sprintf("%d failed authorisations, it refuses more", state.TPM.FailedTries)}))
	}
	if ctx.Err() == nil { // else what did not answer was not waited for
		a.raise(state.Alarms)
		a.observed(state)
	}
	return status, strangers, nil
}

func (a *Agent) observed(s State) {
	if a.Observer != nil {
		a.Observer.Observed(s)
	}
}

// settles is how long a service that does not serve what is installed may be about to:
// at boot they start after us.
const settles = 2 * time.Minute

// servedAlarms asks what is served. Who goes on not serving it is an alarm. Who serves
// something else then has to restart; one that does not run may have been stopped by
// somebody.
func (a *Agent) servedAlarms(ctx context.Context, served map[string]bool) (all []Alarm, strangers []string) {
	unserved := map[string]time.Time{}
	for _, s := range a.sets() {
		findings, err := s.install.Served(ctx, a.emptyItems(s))
		if err != nil {
			all = append(all, Alarm{Kind: AlarmServed, Level: alarm.Warning, Reason: fmt.Sprintf("set %s cannot be asked what is served: %v", s.name, err)})
		}
		for _, f := range findings {
			served[f.Certificate] = f.Err == nil
			if f.Err == nil {
				continue
			}
			since := a.unservedSince(f.Certificate)
			unserved[f.Certificate] = since
			if a.now().Sub(since) < settles {
				a.soon = true
				continue
			}
			all = append(all, Alarm{Kind: AlarmServed, Level: alarm.Warning, Certificate: f.Certificate, Reason: f.Err.Error()})
			var other *probe.WrongLeafError
			if errors.As(f.Err, &other) {
				strangers = append(strangers, f.Certificate)
			}
		}
	}
	a.unserved = unserved
	return all, strangers
}

// unservedSince is since when a certificate is not served: now, where that is new.
func (a *Agent) unservedSince(certificate string) time.Time {
	if since, known := a.unserved[certificate]; known {
		return since
	}
	return a.now()
}

// condition is how the TPM is, nil where it cannot be asked: it may be in use,
// and a renewal will say so.
func (a *Agent) condition(ctx context.Context) *host.Condition {
	end, ours := a.hasTurn()
	if !ours {
		return nil
	}
	defer end()
	prover, err := a.openTPM(ctx, nil)
	if err != nil {
		return nil
	}
	found, err := prover.Condition(ctx)
	if err = errors.Join(err, prover.Close()); err != nil {
		a.log.Debug("the TPM cannot be asked how it is", "error", err)
		return nil
	}
	return found
}

// A raised alarm is known by what it is about.
type raised struct {
	kind        AlarmKind
	certificate string
}

// raise logs what is new among the alarms, and what is over.
func (a *Agent) raise(all []Alarm) {
	now := map[raised]alarm.Level{}
	for _, one := range all {
		key := raised{one.Kind, one.Certificate}
		now[key] = max(now[key], one.Level)
		if one.Level > a.alarmed[key] {
			a.log.Log(context.Background(), levels[one.Level], "alarm", "event", EventAlarm, "kind", string(one.Kind),
				"level", one.Level, "certificate", one.Certificate, "reason", one.Reason)
		}
	}
	for key := range a.alarmed {
		if now[key] == alarm.None {
			a.log.Info("an alarm is over", "event", EventAlarmOver, "kind", string(key.kind), "certificate", key.certificate)
		}
	}
	a.alarmed = now
}

// levels are those of the log, by the level of an alarm.
var levels = map[alarm.Level]slog.Level{alarm.Info: slog.LevelInfo, alarm.Warning: slog.LevelWarn, alarm.Critical: slog.LevelError}
