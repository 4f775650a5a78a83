// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/attest/eventlog"
)

// Bounds of one Baseline, so that it fits in one entry of OpenBao's storage.
const (
	MaxEntries = 24
	MaxListed  = 512 // items of one hand-written list
)

// keyNames are the variables that secure-boot-keys judges, in UEFI's order.
var keyNames = []string{eventlog.PK, eventlog.KEK, eventlog.DB, eventlog.DBX}

// Entry is a State that an operator accepted.
type Entry struct {
	State   State     `json:"state"`
	From    string    `json:"from,omitempty"` // the host it was captured from
	Added   time.Time `json:"added,omitzero"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

func (e *Entry) live(now time.Time) bool { return e.Expires.IsZero() || now.Before(e.Expires) }

// String names the entry for an operator.
func (e *Entry) String() string {
	if e.From == "" {
		return "the entry " + short(e.State.ID())
	}
	return "the entry from " + e.From
}

// Baseline is a set of accepted states and of accepted parts: any of them will
// do. All digests are lower-case hex.
type Baseline struct {
	Entries []Entry `json:"entries,omitempty"`

	PCRDigests []string            `json:"pcr_digests,omitempty"` // SHA-256 over the role's PCRs
	Keys       map[string][]string `json:"keys,omitempty"`        // PK, KEK, db, dbx: SHA-256 of the content
	Components []string            `json:"components,omitempty"`  // image digests in the role's bank
}

// Check says whether a hand-written baseline can ever match: names and shapes.
// The errors are for the operator who wrote it.
func (b *Baseline) Check() error {
	if len(b.Entries) > MaxEntries {
		return fmt.Errorf("%d entries, at most %d", len(b.Entries), MaxEntries)
	}
	if err := checkList("pcr_digests", b.PCRDigests, 32); err != nil {
		return err
	}
	if err := checkList("components", b.Components, 32, 48); err != nil {
		return err
	}
	for name, list := range b.Keys {
		if !slices.Contains(keyNames, name) {
			return fmt.Errorf("keys are PK, KEK, db or dbx, not %q", name)
		}
		if err := checkList(name, list, 32); err != nil {
			return err
		}
	}
	return nil
}

func checkList(name string, list []string, sizes ...int) error {
	if len(list) > MaxListed {
		return fmt.Errorf("%s: %d items, at most %d", name, len(list), MaxListed)
	}
	for _, item := range list {
		raw, err := hex.DecodeString(item)
		if err != nil || item != strings.ToLower(item) || !slices.Contains(sizes, len(raw)) {
			return fmt.Errorf("%s: %q is not a digest of %v bytes in lower-case hex", name, item, sizes)
		}
	}
	return nil
}

// short abbreviates a digest for a text.
func short(digest string) string {
	if len(digest) <= 12 {
		return digest
	}
	return digest[:12] + "…"
}
