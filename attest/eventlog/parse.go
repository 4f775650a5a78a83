// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"iter"

	"funlab.casa/omen/attest"
)

// noAction is EV_NO_ACTION, the type of events that extend no PCR. It is the one
// type that is believed: calling an extend so changes the replay.
const noAction = 3

// Log is a well-formed crypto-agile event log, read for one bank. It proves
// nothing yet: see [Log.Against].
type Log struct {
	bank     bank
	header   header
	events   []byte // after the header
	locality byte   // of TPM2_Startup: what PCR 0 begins with
}

// Event is one entry of a log. Digest and Data are parts of the raw log and not
// to be written to.
type Event struct {
	Index  int    // place in the log, the header being 0
	PCR    int    // 0–23, or anything where nothing is extended
	Type   uint32 // a claim of the host
	Digest []byte // of the log's bank
	Data   []byte // a claim of the host, unless it hashes to Digest
}

// Extends reports whether the event extended its PCR: all but EV_NO_ACTION do.
func (e Event) Extends() bool { return e.Type != noAction }

// Parse reads a whole log for a bank, "sha256" or "sha384". It takes at most
// [attest.MaxEventLog] bytes, allocates nothing for what the log claims, and
// refuses a log that is not complete to the last byte, that extends nothing, or
// in which an extend has no digest of the bank. Bytes after the last event are
// refused too, zeros included: Linux ends the log where the firmware's ends.
//
// The errors are *[attest.Refusal] with rule event-log, or pcr-selection for
// another bank.
//
// Source: TCG PC Client Platform Firmware Profile, "TCG_PCR_EVENT2 Structure".
func Parse(raw []byte, bank string) (*Log, error) {
	if len(raw) > attest.MaxEventLog {
		return nil, refuse("%d bytes", len(raw))
	}
	b, err := newBank(bank)
	if err != nil {
		return nil, err
	}
	c := &cursor{rest: raw}
	h, err := readHeader(c)
	if err != nil {
		return nil, err
	}
	if h.index(b.algorithm) < 0 {
		return nil, refuse("no %s digests", b.name)
	}
	l := &Log{bank: b, header: h, events: c.rest}
	return l, l.check()
}

// check walks the log once, so that later walks need not look for errors.
func (l *Log) check() error {
	c := &cursor{rest: l.events}
	extends, s := 0, startup{}
	for index := 1; !c.done(); index++ {
		e, err := l.next(c, index)
		if err != nil {
			return err
		}
		if e.Extends() {
			extends++
		}
		if err := s.see(e); err != nil {
			return err
		}
	}
	if extends == 0 {
		return refuse("no event extends a PCR")
	}
	l.locality = s.locality
	return nil
}

// Events walks the log after its header.
func (l *Log) Events() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		c := &cursor{rest: l.events}
		for index := 1; !c.done(); index++ {
			e, err := l.next(c, index)
			if err != nil || !yield(e) {
				return
			}
		}
	}
}

// next reads one TCG_PCR_EVENT2.
func (l *Log) next(c *cursor, index int) (Event, error) {
	pcr, kind := c.uint32(), c.uint32()
	digest, err := l.digest(c, index)
	if err != nil {
		return Event{}, err
	}
	data := c.take(uint64(c.uint32()))
	e := Event{Index: index, PCR: int(pcr), Type: kind, Digest: digest, Data: data}
	switch {
	case c.short:
		return Event{}, refuse("truncated in event %d", index)
	case e.Extends() && pcr > attest.MaxPCR:
		return Event{}, refuse("event %d extends PCR %d", index, pcr)
	case e.Extends() && digest == nil:
		return Event{}, refuse("event %d has no %s digest", index, l.bank.name)
	}
	return e, nil
}

// digest reads a TPML_DIGEST_VALUES and returns the bank's digest, or nil when
// there is none. Each algorithm stands once and in the header.
func (l *Log) digest(c *cursor, index int) (digest []byte, err error) {
	count := c.uint32()
	if count > uint32(l.header.count) {
		return nil, refuse("event %d has %d digests", index, count)
	}
	var seen [maxAlgorithms]bool
	for range count {
		id := c.uint16()
		if c.short {
			return nil, refuse("truncated in event %d", index)
		}
		i := l.header.index(id)
		if i < 0 || seen[i] {
			return nil, refuse("event %d has algorithm %#04x twice or unannounced", index, id)
		}
		seen[i] = true
		d := c.take(uint64(l.header.algorithms[i].size))
		if id == l.bank.algorithm {
			digest = d
		}
	}
	return digest, nil
}
