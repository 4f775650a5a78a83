// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"fmt"
	"strings"
	"time"
)

// explainDigest finds what moved when the PCR digest is in no live baseline: an
// entry that had it and expired, or the PCRs that differ from the nearest entry.
func (j *judgement) explainDigest(o *outcome) {
	text := "PCR digest " + short(j.state.PCRDigest) + " is in no live baseline"
	for _, e := range j.live.expired {
		if e.State.SameValues(j.state) {
			o.find(Finding{Text: fmt.Sprintf("%s; %s had it until %s", text, e, e.Expires.UTC().Format(time.RFC3339))})
			return
		}
	}
	entry, moved := j.nearest()
	if entry == nil {
		o.find(Finding{Text: text})
		return
	}
	o.find(Finding{Text: fmt.Sprintf("%s; nearest is %s, from which %s", text, entry, pcrList(moved))})
	for _, pcr := range moved {
		o.find(moveOf(pcr, j.state, &entry.State))
	}
}

// nearest is the live entry of the same selection with the fewest other values.
func (j *judgement) nearest() (nearest *Entry, moved []int) {
	for _, e := range j.live.entries {
		n := len(j.state.Values)
		if n == 0 || n != len(e.State.Values) || n != len(j.state.PCRs) || !e.State.sameSelection(j.state) {
			continue
		}
		var differ []int
		for i, pcr := range j.state.PCRs {
			if j.state.Values[i] != e.State.Values[i] {
				differ = append(differ, pcr)
			}
		}
		if nearest == nil || len(differ) < len(moved) {
			nearest, moved = e, differ
		}
	}
	return nearest, moved
}

func pcrList(pcrs []int) string {
	words := make([]string, len(pcrs))
	for i, pcr := range pcrs {
		words[i] = fmt.Sprint(pcr)
	}
	if len(words) == 1 {
		return "PCR " + words[0] + " differs"
	}
	return "PCRs " + strings.Join(words, ", ") + " differ"
}

// moveOf says what moved in one PCR, as far as both logs tell.
func moveOf(pcr int, now, before *State) Finding {
	moved := Finding{PCR: new(pcr), Text: fmt.Sprintf("PCR %d: moved", pcr)}
	switch {
	case !now.covers(pcr) || !before.covers(pcr):
		return moved
	case pcr == 2 || pcr == 4:
		return movedComponent(moved, now.in(pcr), before.in(pcr))
	case pcr == 7:
		if words := movedKeys(now, before); len(words) > 0 {
			moved.Text += ": " + strings.Join(words, ", ")
		}
	}
	return moved
}

// movedComponent names the first component that differs.
func movedComponent(moved Finding, now, before []Component) Finding {
	same := 0
	for same < min(len(now), len(before)) && now[same].Digest == before[same].Digest {
		same++
	}
	switch {
	case same < len(now) && same < len(before):
		return now[same].finding("digest " + short(now[same].Digest) + ", was " + before[same].named())
	case same < len(now):
		return now[same].finding("digest " + short(now[same].Digest) + " is new")
	case same < len(before):
		moved.Text += ": " + before[same].named() + " is gone"
	default:
		moved.Text += ", with the same components"
	}
	return moved
}

func (c Component) named() string {
	if c.Name == "" {
		return short(c.Digest)
	}
	return c.Name + " " + short(c.Digest)
}

func movedKeys(now, before *State) (words []string) {
	if now.SecureBoot != before.SecureBoot {
		words = append(words, fmt.Sprintf("Secure Boot is %s, was %s", now.SecureBoot, before.SecureBoot))
	}
	for _, name := range keyNames {
		if now.Keys[name] != before.Keys[name] {
			words = append(words, name+" differs")
		}
	}
	return words
}
