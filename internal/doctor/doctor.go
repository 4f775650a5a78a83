// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"funlab.casa/omen/install/service"
)

// Status is how a check ended.
type Status string

// The statuses.
const (
	OK            Status = "ok"
	Warning       Status = "warning"        // works, and is weaker or will not work for long
	Problem       Status = "problem"        // a renewal, or a service, fails by it
	NotApplicable Status = "not applicable" // there is nothing to look at, or no way to look
)

// Area is the part of a renewal that a check is about.
type Area string

// The areas, in the order of a renewal.
const (
	AreaConfiguration Area = "configuration"
	AreaTPM           Area = "tpm"
	AreaServer        Area = "server" // to reach it
	AreaLogin         Area = "login"
	AreaIssuing       Area = "issuing"
	AreaInstall       Area = "install"
	AreaService       Area = "service"
)

// Result is one thing that a check saw.
type Result struct {
	Check  string `json:"check"`
	Area   Area   `json:"area"`
	About  string `json:"about,omitempty"` // an address, a certificate, a file
	Status Status `json:"status"`
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"`
}

// Check is one question to the host.
type Check struct {
	Name   string
	Area   Area
	Asks   string // what is looked at, for people
	Remedy string // of most problems; a result may know a better one

	needs    []string      // checks without whose success there is nothing to look at
	root     bool          // only root sees what it looks at
	patience time.Duration // 0: usual
	run      func(context.Context, *patient) []Result
}

// How long a check may take: usual, and long where a discrete TPM takes up to a minute for an RSA
// key, a server with thousands of hosts as long for a challenge. grace is how much
// longer one that does not heed its end is waited for.
const (
	usual = 30 * time.Second
	long  = 2 * time.Minute
	grace = 5 * time.Second
)

// Checks are all checks, in the order in which they are made.
func Checks() []Check {
	return slices.Concat(configurationChecks(), tpmChecks(), keyChecks(), serverChecks(), loginChecks(), pkiChecks(),
		certificateChecks(), keylimeChecks(), systemChecks(), ownUnitChecks(), besideChecks(), rivalChecks(), serviceChecks())
}

// Doctor says which host to look at.
type Doctor struct {
	Config string             // path of agent.toml
	Root   string             // what the host's files are below; "" for "/"
	Only   []string           // names of checks; nil is all. What they need is made too
	Skip   []string           // names of checks that are left out
	Hint   func(error) string // the remedy of an error; nil knows none
	Log    *slog.Logger       // nil for none

	units func(ctx context.Context, names []string) ([]service.State, error) // asks systemd; nil for this host's
}

// Examine makes the checks. It is an error to name a check that there is not.
func (d Doctor) Examine(ctx context.Context) ([]Result, error) {
	checks, err := d.chosen()
	if err != nil {
		return nil, err
	}
	p := d.newPatient()
	defer p.close()
	var all []Result
	for _, c := range checks {
		all = append(all, c.make(ctx, p, all)...)
	}
	return all, nil
}

// chosen are the checks to make: those named, with what they need.
func (d Doctor) chosen() ([]Check, error) {
	all := Checks()
	for _, name := range slices.Concat(d.Only, d.Skip) {
		if !slices.ContainsFunc(all, func(c Check) bool { return c.Name == name }) {
			return nil, fmt.Errorf("no check %q", name)
		}
	}
	wanted := slices.Clone(d.Only)
	for _, c := range slices.Backward(all) { // what is needed comes before
		if slices.Contains(wanted, c.Name) {
			wanted = append(wanted, c.needs...)
		}
	}
	return slices.DeleteFunc(all, func(c Check) bool {
		return slices.Contains(d.Skip, c.Name) || len(d.Only) > 0 && !slices.Contains(wanted, c.Name)
	}), nil
}

// make makes one check, unless what it needs is missing.
func (c Check) make(ctx context.Context, p *patient, before []Result) []Result {
	results := c.blocked(before)
	if results == nil {
		results = c.bounded(ctx, p)
	}
	for i := range results {
		results[i].Check, results[i].Area = c.Name, c.Area
		if results[i].Remedy == "" && (results[i].Status == Problem || results[i].Status == Warning) {
			results[i].Remedy = c.Remedy
		}
	}
	return results
}

const rootAlone = "only root sees it"

// blocked says which check has to succeed first, nil when none has.
func (c Check) blocked(before []Result) []Result {
	if c.root && os.Geteuid() != 0 {
		return notApplicable(rootAlone)
	}
	for _, need := range c.needs {
		succeeded := slices.ContainsFunc(before, func(r Result) bool { return r.Check == need && (r.Status == OK || r.Status == Warning) })
		if !succeeded {
			return notApplicable("%s comes first", need)
		}
	}
	return nil
}

// bounded runs a check within its time. One that does not heed its end is left
// behind, one that breaks down is a problem of its own: the others are made.
func (c Check) bounded(ctx context.Context, p *patient) []Result {
	patience := c.patience
	if patience == 0 {
		patience = usual
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan []Result, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				done <- problem("", "a report of this, with the version of omen-agent, helps", "the check itself broke down: %v", cause)
			}
		}()
		done <- c.run(ctx, p)
	}()
	timer := time.NewTimer(patience + grace)
	defer timer.Stop()
	select {
	case results := <-done:
		return results
	case <-timer.C:
		return problem("", "", "no answer within %s", patience)
	}
}

func result(status Status, about, remedy, format string, args ...any) []Result {
	return []Result{{Status: status, About: about, Remedy: remedy, Seen: fmt.Sprintf(format, args...)}}
}

func ok(about, format string, args ...any) []Result { return result(OK, about, "", format, args...) }

func warning(about, remedy, format string, args ...any) []Result {
	return result(Warning, about, remedy, format, args...)
}

func problem(about, remedy, format string, args ...any) []Result {
	return result(Problem, about, remedy, format, args...)
}

func notApplicable(format string, args ...any) []Result {
	return result(NotApplicable, "", "", format, args...)
}

// failed is a problem with the words and the remedy of an error. That others than root
// may not look is no problem of the host.
func (p *patient) failed(about string, err error) []Result {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return notApplicable("%s: %v", rootAlone, err)
	}
	return problem(about, p.hint(err), "%v", err)
}

// eachOf is fn of every element; nothing at all is not applicable.
func eachOf[T any](all []T, none string, fn func(T) []Result) []Result {
	var results []Result
	for _, one := range all {
		results = append(results, fn(one)...)
	}
	if len(results) == 0 {
		return notApplicable("%s", none)
	}
	return results
}
