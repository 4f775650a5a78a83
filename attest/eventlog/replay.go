// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"

	"funlab.casa/omen/attest"
)

// Explained reports whether a quoted value of the PCR must be explained by the
// log: firmware logs all it extends into PCRs 0–4, 6 and 7. Into PCR 5 it may
// extend when the operating system has begun, after the log was handed over, and
// 8 and above belong to others; those count by their value only.
func Explained(pcr int) bool { return pcr >= 0 && pcr <= 7 && pcr != 5 }

// register is a PCR during a replay.
type register struct {
	value  digest
	events int
}

// Replay computes the value that the log gives a PCR, 0 to 23, from its value
// after a reset, and counts the events that went into it. Another PCR has none.
func (l *Log) Replay(pcr int) (value []byte, events int) {
	if pcr < 0 || pcr > attest.MaxPCR {
		return nil, 0
	}
	r := l.replay(1 << pcr)[pcr]
	return r.value[:l.bank.size], r.events
}

// replay computes the PCRs whose bits are set in one walk.
func (l *Log) replay(pcrs uint32) (registers [attest.MaxPCR + 1]register) {
	for pcr := range registers {
		registers[pcr].value = l.reset(pcr)
	}
	for e := range l.Events() {
		if e.Extends() && pcrs>>e.PCR&1 == 1 {
			l.extend(&registers[e.PCR], e.Digest)
		}
	}
	return registers
}

// reset is the value of a PCR after TPM2_Startup(CLEAR): ones for 17 to 22, the
// locality for 0, zero for the rest.
func (l *Log) reset(pcr int) (d digest) {
	switch {
	case pcr == 0:
		d[l.bank.size-1] = l.locality
	case pcr >= 17 && pcr <= 22:
		copy(d[:l.bank.size], bytes.Repeat([]byte{0xff}, l.bank.size))
	}
	return d
}

// extend is TPM2_PCR_Extend (TPM 2.0 Part 1, "Extend of a PCR").
func (l *Log) extend(r *register, digest []byte) {
	var both [2 * maxDigest]byte
	n := copy(both[:], r.value[:l.bank.size])
	n += copy(both[n:], digest)
	r.value = l.bank.sum(both[:n])
	r.events++
}

// Proven is a log that replays to quoted values. What it says holds for the PCRs
// of that quote alone.
type Proven struct {
	log     *Log
	covered uint32 // quoted PCRs that the replay explains, as bits
}

// Against compares the log with quoted values, in the order of the selection.
// For every selected PCR that must be [Explained] the replay must give the
// value; one without events must thus still have its reset value.
//
// The error is a *[attest.Refusal] with rule event-log. That values are the ones
// the TPM signed is for the caller to have checked.
func (l *Log) Against(selection attest.Selection, values [][]byte) (*Proven, error) {
	if selection.Bank != l.bank.name || len(values) != len(selection.PCRs) {
		return nil, refuse("log of bank %s against %d values of another selection", l.bank.name, len(values))
	}
	p := &Proven{log: l}
	for _, pcr := range selection.PCRs {
		if Explained(pcr) {
			p.covered |= 1 << pcr
		}
	}
	registers := l.replay(p.covered)
	for i, pcr := range selection.PCRs {
		if !Explained(pcr) {
			continue
		}
		//nolint:gosec // as many values as PCRs: see above
		if r := &registers[pcr]; !bytes.Equal(r.value[:l.bank.size], values[i]) {
			return nil, refuse("PCR %d: %d events do not replay to its value", pcr, r.events)
		}
	}
	return p, nil
}

// Covers reports whether the PCR was quoted and its value is explained.
func (p *Proven) Covers(pcr int) bool { return pcr >= 0 && p.covered>>pcr&1 == 1 }
