// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"

	"funlab.casa/omen/internal/agent"
)

type unsealCommand struct{}

// Run puts sealed keys where the services read them.
func (*unsealCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	names, failed := a.Unseal(j.ctx)
	err = show(j, map[string][]string{"unsealed": names}, func(w io.Writer, _ map[string][]string) {
		fmt.Fprintf(w, "unsealed\t%s\n", list(names))
	})
	if failed != nil {
		return failed
	}
	return err
}

type announceCommand struct {
	Values []string `arg:"" optional:"" help:"PCR=VALUE, the value in hexadecimal, as another machine shows it that has had the change (omen-agent identity)." placeholder:"PCR=VALUE"`
	Clear  bool     `help:"Take all announcements back."`
	List   bool     `help:"Show what is announced."`
}

// Run records a planned state of this machine and renews, so that the keys in use
// come back in it.
func (c *announceCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	switch {
	case c.List:
		return show(j, a.Announced(), announcedText)
	case c.Clear:
		if err := a.ClearAnnounced(); err != nil {
			return err
		}
	default:
		planned, err := a.ParseAnnouncement(c.Values)
		if err != nil {
			return err
		}
		if err := a.Announce(planned); err != nil {
			return err
		}
	}
	end := j.progress(a)
	outcome, err := a.Renew(j.ctx, nil)
	if end(); err != nil {
		return c.notSealed(err)
	}
	return show(j, outcome, outcomeText)
}

// notSealed says where a renewal that failed leaves the keys in use.
func (c *announceCommand) notSealed(err error) error {
	if c.Clear {
		return fmt.Errorf("the announcements are taken back, the keys in use stay sealed as they are: %w", err)
	}
	return fmt.Errorf("the announcement is kept, the keys in use are not sealed to it: %w", err)
}

func announcedText(w io.Writer, all []agent.Announcement) {
	for _, planned := range all {
		pcrs := make([]int, 0, len(planned.Values))
		for pcr := range planned.Values {
			pcrs = append(pcrs, pcr)
		}
		slices.Sort(pcrs)
		for _, pcr := range pcrs {
			fmt.Fprintf(w, "PCR %d\t%s\t%s\tuntil %s\n", pcr, planned.Bank, planned.Values[pcr], when(planned.Until))
		}
	}
}

type forgetCommand struct{}

// Run takes what this agent keeps in the TPM and on the disk off this host.
func (*forgetCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	forgotten, err := a.Forget(j.ctx)
	if err != nil {
		return err
	}
	return show(j, forgotten, func(w io.Writer, f *agent.Forgotten) {
		key := "was not in the TPM"
		if f.AKEvicted {
			key = "taken out of the TPM"
		}
		fmt.Fprintf(w, "attestation key\t%s\nstate\t%s removed\n", key, f.State)
	})
}
