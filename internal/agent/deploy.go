// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"

	"funlab.casa/omen/install"
)

// A deployment is a set on its way to its services.
type deployment struct {
	set
	change *install.Change // nil: it could not be installed
	err    error
}

// deployAll installs the judged sets, and when all that can be are in place it restarts
// what reads them and asks what is served: at boot everything waits for that moment. A
// set that fails goes back by itself; the others stay and are not held up by it.
func (a *Agent) deployAll(ctx context.Context, orders []*order, outcome *Outcome, w *stopwatch) (err error) {
	w.begin(StepInstall)
	lock, err := a.install.Lock()
	if err != nil {
		return at(StepInstall, "", err)
	}
	defer func() { err = errors.Join(err, at(StepInstall, "", lock.Close())) }()
	all := a.switchAll(ctx, lock, orders)
	if a.switched != nil && slices.ContainsFunc(all, func(d *deployment) bool { return d.change != nil }) {
		a.switched()
	}
	for _, d := range quickFirst(all) {
		if d.change != nil {
			d.err = d.finish(ctx, outcome, w, d.name == a.sets()[0].name)
		}
	}
	return a.judgeAll(all)
}

// switchAll makes the judged sets current, one after the other.
func (a *Agent) switchAll(ctx context.Context, lock *install.Lock, orders []*order) (all []*deployment) {
	for _, s := range a.sets() {
		if !s.wanted(orders) {
			continue
		}
		d := &deployment{set: s}
		items, err := a.items(s, orders)
		if err == nil {
			d.change, err = s.install.Under(lock).Install(ctx, items)
		}
		d.err = at(StepInstall, "", err)
		all = append(all, d)
	}
	return all
}

// quickFirst has those in front that are proven without a restart: they need not be in
// doubt until the others are.
func quickFirst(all []*deployment) []*deployment {
	restarts := func(d *deployment) int {
		if d.change == nil {
			return 0
		}
		return min(len(d.change.Services()), 1)
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b *deployment) int { return restarts(a) - restarts(b) })
}

// finish restarts what reads a set, asks what is served and closes the change. first is of
// the set that gives the outcome its generation.
func (d *deployment) finish(ctx context.Context, outcome *Outcome, w *stopwatch, first bool) (err error) {
	defer func() { err = errors.Join(err, at(StepInstall, "", d.change.Close())) }()
	outcome.uses(d.name, d.change.Generation(), first)
	outcome.Restarted = append(outcome.Restarted, restarted(d.set, d.change)...)
	certificates, err := serve(ctx, d.set, d.change, w)
	outcome.Certificates = append(outcome.Certificates, certificates...)
	return err
}

// judgeAll says what became of the sets, and keeps in mind which failed.
func (a *Agent) judgeAll(all []*deployment) error {
	var errs []error
	a.failed = nil
	for _, d := range all {
		if d.err == nil {
			a.answer(d.set)
			continue
		}
		err := d.err
		if d.general() {
			err = ofSet(d.set, err)
		}
		errs = append(errs, err)
		a.failed, a.failedOf = append(a.failed, d.names()...), a.fingerprint()
	}
	if len(errs) < len(all) {
		a.applyInPart()
	}
	if len(errs) > 0 && len(errs) < len(all) {
		a.log.Warn("some sets are renewed, others are not", "not renewed", a.failed)
	}
	return joined(errs)
}

// joined has in front what came to its restarts: errors.As finds that first, and it
// decides how long the next attempt is held back.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	slices.SortStableFunc(errs, func(a, b error) int {
		switch {
		case NotServed(a) == NotServed(b):
			return 0
		case NotServed(a):
			return -1
		}
		return 1
	})
	return errors.Join(errs...)
}

// ofSet says in an error which set it is about.
func ofSet(s set, err error) error {
	var step *StepError
	if errors.As(err, &step) && step.Certificate == "" {
		step.Certificate = s.name
	}
	return err
}

// serve restarts what reads a set that was switched to and asks what is served. It
// gives the certificates of the set; where one of them is not served, the set before
// is put back.
func serve(ctx context.Context, s set, change *install.Change, w *stopwatch) ([]install.Certificate, error) {
	w.begin(StepReload)
	if err := change.Reload(ctx); err != nil {
		return nil, rollBack(ctx, change, StepReload, err)
	}
	w.begin(StepProbe)
	if err := change.Probe(ctx); err != nil {
		return nil, rollBack(ctx, change, StepProbe, err)
	}
	current, err := s.install.Current()
	if err != nil {
		return nil, at(StepInstall, "", err)
	}
	return current.Certificates, nil
}

// restarted names the services that read a set: those of Keylime by profile, another
// program by its certificate.
func restarted(s set, change *install.Change) []string {
	services := change.Services()
	if s.general() && len(services) > 0 {
		return s.names()
	}
	return services
}

// rollBack goes on when ctx has ended: install bounds the time of each service.
func rollBack(ctx context.Context, change *install.Change, step Step, cause error) error {
	if err := change.RollBack(ctx); err != nil {
		return &StepError{Step: step, Err: errors.Join(cause, err)}
	}
	return &StepError{Step: step, Err: cause, RolledBack: true}
}
