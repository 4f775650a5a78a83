// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
)

// announcedName is the file of announced states in the state folder.
const announcedName = "announced.json"

// Announcements end by themselves: a state that has not come within a month is not
// a planned one any more.
const announcedFor = 30 * 24 * time.Hour

// Announcement is a state of the machine that somebody plans: what keys are sealed
// to besides the present one, so that they come back after the change.
type Announcement struct {
	Bank   string         `json:"bank"`
	Values map[int]string `json:"values"` // hexadecimal, by PCR; others keep their present value
	Until  time.Time      `json:"until"`
}

// ParseAnnouncement reads "PCR=HEX" words for the configured bank and PCRs.
func (a *Agent) ParseAnnouncement(words []string) (*Announcement, error) {
	seal := a.config.Seal
	wrong := func(format string, args ...any) error {
		return &config.Error{File: "announce", Err: fmt.Errorf(format, args...),
			Hint: fmt.Sprintf("give PCR=VALUE, the value in hexadecimal of bank %s; keys are sealed to PCRs %v", seal.Bank, seal.PCRs)}
	}
	if seal.Policy == "none" {
		return nil, wrong("keys are sealed to no state of the machine")
	}
	size := map[string]int{"sha256": 32, "sha384": 48}[seal.Bank]
	planned := &Announcement{Bank: seal.Bank, Values: map[int]string{}, Until: a.now().Add(announcedFor).UTC()}
	for _, word := range words {
		number, value, _ := strings.Cut(word, "=")
		pcr, err := strconv.Atoi(number)
		if err != nil || !slices.Contains(seal.PCRs, pcr) {
			return nil, wrong("%q: keys are not sealed to that PCR", word)
		}
		if digest, err := hex.DecodeString(value); err != nil || len(digest) != size {
			return nil, wrong("%q: not the %d bytes of a PCR in hexadecimal", word, size)
		}
		if _, twice := planned.Values[pcr]; twice {
			return nil, wrong("PCR %d twice", pcr)
		}
		planned.Values[pcr] = strings.ToLower(value)
	}
	if len(planned.Values) == 0 {
		return nil, wrong("no value")
	}
	return planned, nil
}

// Announce keeps a planned state. Keys that are made from now on are sealed to it
// as well; those that are installed are not.
func (a *Agent) Announce(planned *Announcement) error {
	list := append(a.Announced(), *planned)
	if len(list) >= tpm.MaxStates {
		return &config.Error{File: "announce", Err: fmt.Errorf("%d states are announced", len(list)-1),
			Hint: "omen-agent announce --clear takes them back"}
	}
	return a.writeAnnounced(list)
}

// ClearAnnounced takes all announcements back, for the keys of the next renewal.
func (a *Agent) ClearAnnounced() error { return a.writeAnnounced(nil) }

// Announced lists the states that are announced and not over. A file that cannot
// be read announces nothing.
func (a *Agent) Announced() []Announcement {
	text, err := readSmall(filepath.Join(a.state, announcedName))
	if err != nil {
		return nil
	}
	var list []Announcement
	if err := json.Unmarshal(text, &list); err != nil {
		a.log.Warn("announced states are not read", "error", err)
		return nil
	}
	return slices.DeleteFunc(list, func(p Announcement) bool { return a.now().After(p.Until) })
}

func (a *Agent) writeAnnounced(list []Announcement) error {
	if len(list) == 0 {
		return a.drop(announcedName)
	}
	return a.keep(announcedName, list)
}

// withAnnounced adds the announced states to a policy of the present one. One that
// has come true adds nothing.
func (a *Agent) withAnnounced(present issuer.Policy) issuer.Policy {
	if len(present.States) == 0 {
		return present
	}
	for _, planned := range a.Announced() {
		state := slices.Clone(present.States[0])
		for i, pcr := range present.PCRs {
			if value, err := hex.DecodeString(planned.Values[pcr]); err == nil && len(value) == len(state[i]) {
				state[i] = value
			}
		}
		same := func(other [][]byte) bool { return slices.EqualFunc(state, other, slices.Equal[[]byte]) }
		if planned.Bank == a.config.Seal.Bank && !slices.ContainsFunc(present.States, same) && len(present.States) < tpm.MaxStates {
			present.States = append(present.States, state)
		}
	}
	return present
}
