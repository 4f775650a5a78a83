// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"

	"funlab.casa/omen/internal/doctor"
)

type doctorCommand struct {
	Check []string `help:"Make this check, and what it needs; may be given several times." placeholder:"NAME"`
	Skip  []string `help:"Leave this check out; may be given several times." placeholder:"NAME"`
	List  bool     `help:"List the checks and make none."`
}

// Help is the command's manual.
func (*doctorCommand) Help() string {
	return `Looks for everything that would keep certificates of this host from being renewed and served, in the order of a
renewal, and says what mends it. It goes on after a check that fails, needs no configuration that is right, and
changes nothing on this host. Run it as root: what only root sees is left out for others, and that is a problem too.

It logs in to OpenBao without having anything signed; the token is not kept. Where a host waits for approval, that
lists it, as every login does. It asks the PKI roles of this host for names that no host has, which a role refuses; one
that does not has issued a certificate that lives two minutes, and whose key is thrown away: the report has its serial
number. Leave these requests out with --skip pki-names, --skip pki-other-host and the like.

The exit code is that of the first problem: 2 configuration, 5 TPM, 4 OpenBao is not reached, 3 OpenBao refuses, 6
issuing, 7 installed files and rivals, 8 services. Warnings alone are 0.`
}

// Run makes the checks. What was seen is shown whether or not all is well.
func (d *doctorCommand) Run(j *job) error {
	if d.List {
		return show(j, listed(), listedText)
	}
	results, err := doctor.Doctor{Config: j.cli.Config, Only: d.Check, Skip: d.Skip, Hint: hint, Log: j.log}.Examine(j.ctx)
	if err != nil {
		return usageError(err)
	}
	if err := show(j, results, resultsText); err != nil {
		return err
	}
	return diagnosis(results)
}

// problemsError is that not all is well.
type problemsError struct {
	count int
	first doctor.Result
}

// Error counts the problems, and names the first.
func (e *problemsError) Error() string {
	if e.count == 1 {
		return fmt.Sprintf("1 problem: %s", e.first.Check)
	}
	return fmt.Sprintf("%d problems, the first: %s", e.count, e.first.Check)
}

// diagnosis is the error for what was found, nil without a problem.
func diagnosis(results []doctor.Result) error {
	isProblem := func(r doctor.Result) bool { return r.Status == doctor.Problem }
	first := slices.IndexFunc(results, isProblem)
	if first < 0 {
		return nil
	}
	count := 0
	for _, r := range results {
		if isProblem(r) {
			count++
		}
	}
	return &problemsError{count: count, first: results[first]}
}

// areaCodes are the exit codes by what the first problem is about.
var areaCodes = map[doctor.Area]int{
	doctor.AreaConfiguration: exitUsage, doctor.AreaTPM: exitTPM, doctor.AreaServer: exitUnreachable, doctor.AreaLogin: exitRefused,
	doctor.AreaIssuing: exitIssuing, doctor.AreaInstall: exitInstall, doctor.AreaService: exitProbe,
}

func resultsText(w io.Writer, results []doctor.Result) {
	for _, r := range results {
		status := string(r.Status)
		if r.Status == doctor.Problem {
			status = "PROBLEM"
		}
		seen := r.Seen
		if r.About != "" {
			seen = r.About + ": " + seen
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", status, r.Check, printable(seen))
		if r.Remedy != "" {
			fmt.Fprintf(w, "\t\tremedy: %s\n", printable(r.Remedy))
		}
	}
}

// listedCheck is a check for people and as JSON.
type listedCheck struct {
	Name   string `json:"name"`
	Area   string `json:"area"`
	Asks   string `json:"asks"`
	Remedy string `json:"remedy"`
}

func listed() []listedCheck {
	var all []listedCheck
	for _, c := range doctor.Checks() {
		all = append(all, listedCheck{Name: c.Name, Area: string(c.Area), Asks: c.Asks, Remedy: c.Remedy})
	}
	return all
}

func listedText(w io.Writer, all []listedCheck) {
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s\n", c.Name, c.Asks)
	}
}
