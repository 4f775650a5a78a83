// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"

	"funlab.casa/omen/attest"
)

// The header is the first event: a TCG_PCR_EVENT, the form that logs of TPM 1.2
// had throughout, whose data is a TCG_EfiSpecIdEvent (TCG PC Client Platform
// Firmware Profile, "TCG_EfiSpecIdEvent Structure").
const (
	specID03 = "Spec ID Event03\x00"
	sha1Size = 20

	// maxAlgorithms is more hash algorithms than the TCG registry has.
	maxAlgorithms = 16
)

// digestSizes are the hash algorithms of the TCG Algorithm Registry.
var digestSizes = map[uint16]uint16{
	0x0004: 20, // SHA-1
	0x000B: 32, // SHA-256
	0x000C: 48, // SHA-384
	0x000D: 64, // SHA-512
	0x0012: 32, // SM3-256
	0x0027: 32, // SHA3-256
	0x0028: 48, // SHA3-384
	0x0029: 64, // SHA3-512
}

// header says which digests every event carries, and how long each is.
type header struct {
	count      int
	algorithms [maxAlgorithms]struct{ id, size uint16 }
}

// index is the place of an algorithm in the header, or -1.
func (h *header) index(id uint16) int {
	for i := range h.count {
		if h.algorithms[i].id == id {
			return i
		}
	}
	return -1
}

func refuse(format string, args ...any) error {
	return attest.Refuse(attest.RuleEventLog, format, args...)
}

// readHeader reads the first event. A log whose digests are all SHA-1 has none:
// it begins with an event like any other, or with an older Spec ID.
func readHeader(c *cursor) (h header, err error) {
	pcr, kind := c.uint32(), c.uint32()
	digest := c.take(sha1Size)
	data := c.take(uint64(c.uint32()))
	if c.short {
		return h, refuse("truncated in its first event")
	}
	if kind != noAction || !bytes.HasPrefix(data, []byte(specID03)) {
		return h, refuse("not a crypto-agile log: its digests are SHA-1 only")
	}
	if pcr != 0 || !bytes.Equal(digest, make([]byte, sha1Size)) {
		return h, refuse("header with PCR %d or a digest", pcr)
	}
	return readSpecID(&cursor{rest: data[len(specID03):]})
}

// readSpecID reads what follows the signature. Platform class, version and
// errata change nothing for a reader; the vendor's data is theirs.
func readSpecID(c *cursor) (h header, err error) {
	c.take(4 + 1 + 1 + 1 + 1) // platformClass, specVersionMinor, -Major, specErrata, uintnSize
	count := c.uint32()
	if count == 0 || count > maxAlgorithms {
		return h, refuse("header with %d algorithms", count)
	}
	for range count {
		if err := h.add(c.uint16(), c.uint16()); err != nil {
			return h, err
		}
	}
	vendor := c.take(1)
	if len(vendor) == 1 {
		c.take(uint64(vendor[0]))
	}
	if !c.done() {
		return h, refuse("header of another length than it says")
	}
	return h, nil
}

func (h *header) add(id, size uint16) error {
	known, ok := digestSizes[id]
	switch {
	case ok && size != known, size == 0, size > 64:
		return refuse("header with algorithm %#04x of %d bytes", id, size)
	case h.index(id) >= 0:
		return refuse("header with algorithm %#04x twice", id)
	}
	h.algorithms[h.count].id, h.algorithms[h.count].size = id, size
	h.count++
	return nil
}
