// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/agent"
)

// show writes a value as JSON or, by text, for people.
func show[T any](j *job, value T, text func(io.Writer, T)) error {
	if j.cli.Output == "json" {
		e := json.NewEncoder(j.stdout)
		e.SetIndent("", "  ")
		return e.Encode(value)
	}
	w := tabwriter.NewWriter(j.stdout, 0, 0, 2, ' ', 0)
	text(w, value)
	return w.Flush()
}

// printable replaces what could move a terminal's cursor or break a line: some
// of what is printed came over the network.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

func outcomeText(w io.Writer, o *agent.Outcome) {
	fmt.Fprintf(w, "host\t%s\n", o.Host)
	fmt.Fprintf(w, "generation\t%d\n", o.Generation)
	for _, c := range o.Certificates {
		fmt.Fprintf(w, "certificate\t%s\tserial %s\tuntil %s\n", c.Name, c.Serial, when(c.NotAfter))
	}
	fmt.Fprintf(w, "restarted\t%s\n", list(o.Restarted))
}

// finding is one answer of verify, for people and as JSON.
type finding struct {
	Certificate string `json:"certificate,omitempty"`
	Agent       string `json:"agent,omitempty"`
	Check       string `json:"check"`
	OK          bool   `json:"ok"`
	Detail      string `json:"detail,omitempty"`
	Did         string `json:"did,omitempty"`
}

func findings(list []install.Finding) []finding {
	shown := make([]finding, len(list))
	for i, f := range list {
		shown[i] = finding{Certificate: f.Certificate, Agent: f.Agent, Check: f.Check, OK: f.Err == nil, Detail: f.Detail, Did: f.Did}
		if f.Err != nil {
			shown[i].Detail = f.Err.Error()
		}
	}
	return shown
}

// said is everything of a finding that is words.
func (f finding) said() string {
	said := f.Detail
	if f.Did != "" {
		said = f.Did + "; " + said
	}
	if f.Agent != "" {
		said = f.Agent + ": " + said
	}
	return said
}

func findingsText(w io.Writer, list []finding) {
	for _, f := range list {
		verdict := "ok"
		if !f.OK {
			verdict = "WRONG"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", verdict, f.Certificate, f.Check, printable(f.said()))
	}
}

func identityText(w io.Writer, i *agent.Identity) {
	fmt.Fprintf(w, "TPM ID\t%s\n", i.TPMID)
	vouched := "certified"
	if !i.Certified {
		vouched = "NOT certified: nobody vouches that it is in a TPM"
	}
	fmt.Fprintf(w, "endorsement key\t%s, %s\n", i.EK, vouched)
	fmt.Fprintf(w, "AK name\t%s\n", i.AKName)
	fmt.Fprintf(w, "vendor\t%s %s, firmware %s\n", printable(i.Manufacturer), printable(i.Vendor), i.Firmware)
	fmt.Fprintf(w, "resets\t%d, restarts %d\n", i.ResetCount, i.RestartCount)
	for _, pcr := range i.PCRSelection.PCRs {
		n := strconv.Itoa(pcr)
		fmt.Fprintf(w, "PCR %s\t%s\n", n, i.PCRs[n])
	}
	fmt.Fprintf(w, "PCR digest\t%s (%s, PCRs %s)\n", i.PCRDigest, i.PCRSelection.Bank, pcrList(i.PCRSelection.PCRs))
}

func pcrList(pcrs []int) string {
	words := make([]string, len(pcrs))
	for i, p := range pcrs {
		words[i] = strconv.Itoa(p)
	}
	return strings.Join(words, ",")
}

func list(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
