// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"funlab.casa/omen/install"
)

// Found is what a look at the installed sets found.
type Found struct {
	Status       *Status
	Renew        string   // why a renewal is due before its time; "" for not
	Certificates []string // that it is due for; none: all
	Soon         bool     // something has to be looked at again before long
}

// A cause is why certificates are renewed before their time.
type cause string

// The causes.
const (
	causeSpoiled       cause = "installed files are spoiled"
	causeConfiguration cause = "the configuration has changed"
	causeTrust         cause = "the CAs have changed"
	causeStranger      cause = "something else is served than is installed"
	causeBehind        cause = "services run with older certificates than are installed"
)

// A need is a certificate that has to be renewed before its time, and why.
type need struct {
	cause       cause
	certificate string // "": all of them
}

func needs(why cause, certificates []string) []need {
	list := make([]need, len(certificates))
	for i, name := range certificates {
		list[i] = need{why, name}
	}
	return list
}

// betweenAnswers is how long what makes a renewal due again and again does not get
// another one, restarts and all.
const betweenAnswers = time.Hour

// Look looks after what is installed: it mends files and puts sealed keys back. Then it
// observes the host, tells the Observer, and says whether the rest needs a renewal now, of
// which certificates. What was renewed for and is there all the same is so an hour later
// again. The next RenewDue is for what was found.
func (a *Agent) Look(ctx context.Context) (*Found, error) {
	a.soon = false
	found := needs(causeSpoiled, a.spoiled(ctx))
	reconfigured := a.reconfigured()
	if reconfigured {
		found = append(found, need{cause: causeConfiguration})
	}
	found = append(found, needs(causeTrust, a.otherTrust())...)
	found = append(found, needs(causeBehind, a.behind(ctx))...)
	status, strangers, err := a.observe(ctx)
	if err != nil {
		return nil, err
	}
	a.needs = a.unanswered(append(found, needs(causeStranger, strangers)...))
	f := &Found{Status: status, Soon: a.soon}
	if len(a.needs) > 0 {
		f.Renew = string(a.needs[0].cause)
	}
	if !reconfigured {
		f.Certificates = certificates(a.needs)
	}
	return f, nil
}

// unanswered are the needs for which no renewal was made in the last hour. CAs that were
// in order meanwhile have changed again.
func (a *Agent) unanswered(all []need) []need {
	maps.DeleteFunc(a.answered, func(n need, _ time.Time) bool { return n.cause == causeTrust && !slices.Contains(all, n) })
	return slices.DeleteFunc(all, func(n need) bool {
		at, known := a.answered[n]
		return known && a.now().Sub(at) < betweenAnswers
	})
}

// answer notes that a set was renewed for what the last look found.
func (a *Agent) answer(s set) {
	for _, n := range a.needs {
		if !slices.Contains(s.names(), n.certificate) {
			continue
		}
		if a.answered == nil {
			a.answered = map[need]time.Time{}
		}
		a.answered[n] = a.now()
	}
}

// certificates are those that needs name, each once.
func certificates(all []need) (names []string) {
	for _, n := range all {
		if n.certificate != "" && !slices.Contains(names, n.certificate) {
			names = append(names, n.certificate)
		}
	}
	return names
}

// otherTrust are the certificates of the sets for which other CAs are configured than are
// installed.
func (a *Agent) otherTrust() (names []string) {
	if err := a.readTrust(); err != nil {
		a.log.Warn("CAs are not compared", "error", err)
		return nil
	}
	for _, s := range a.sets() {
		other, err := s.install.OtherTrust(a.emptyItems(s))
		if err != nil && !errors.Is(err, install.ErrNotInstalled) {
			a.log.Warn("CAs are not compared", "set", s.name, "error", err)
		}
		if other {
			names = append(names, s.names()...)
		}
	}
	return names
}

// behind are the certificates of services that run with older ones than are installed:
// what such a service has in memory may end before anything on the disk is due. A renewal
// restarts it.
func (a *Agent) behind(ctx context.Context) (names []string) {
	for _, s := range a.sets() {
		found, err := s.install.Behind(ctx, a.emptyItems(s))
		if err != nil {
			continue // nothing is installed; or the renewal will say what is wrong
		}
		names = append(names, found...)
	}
	return names
}

// RenewDue is Renew of what is due: of what the last look found, and of the sets that
// failed last, as long as nothing else is due; else of all.
func (a *Agent) RenewDue(ctx context.Context) (*Outcome, error) {
	only := a.pending()
	outcome, err := a.Renew(ctx, only)
	if err == nil && len(only) > 0 { // else it is written down already
		a.apply()
	}
	return outcome, err
}

// pending are the certificates to renew now; nil is all.
func (a *Agent) pending() []string {
	wanted := slices.Concat(a.failed, certificates(a.needs))
	status, err := a.Status()
	if err != nil || len(wanted) == 0 || a.reconfigured() && a.failedOf != a.fingerprint() {
		return nil // what failed did so under another configuration
	}
	for _, c := range status.Certificates {
		if !slices.Contains(wanted, c.Name) && !c.RenewAt.After(a.now()) {
			return nil
		}
	}
	return a.configured(wanted)
}

// configured are those of the names that the configuration has, each once; nil where one
// of its sets beside them is not proven.
func (a *Agent) configured(wanted []string) (names []string) {
	for _, s := range a.sets() {
		mine := slices.DeleteFunc(s.names(), func(name string) bool { return !slices.Contains(wanted, name) })
		if current, err := s.install.Current(); err == nil && current.Unproven && len(mine) == 0 {
			return nil
		}
		names = append(names, mine...)
	}
	return names
}

// OnSwitch has a function called whenever new sets are in place, before anything restarts
// for them.
func (a *Agent) OnSwitch(act func()) { a.switched = act }
