// SPDX-License-Identifier: Apache-2.0

package eventlog

import "encoding/binary"

// cursor reads little-endian fields from the front of rest. A read past the end
// sets short and empties rest: from then on everything read is zero or nil.
// Callers look at short before they believe what they read.
type cursor struct {
	rest  []byte
	short bool
}

// take returns the next n bytes, a part of rest. It compares before it converts:
// n is a claim of the log.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.rest, c.short = nil, true
		return nil
	}
	taken := c.rest[:n:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) uint16() (v uint16) {
	if len(c.rest) < 2 {
		c.rest, c.short = nil, true
		return 0
	}
	v, c.rest = binary.LittleEndian.Uint16(c.rest), c.rest[2:]
	return v
}

func (c *cursor) uint32() (v uint32) {
	if len(c.rest) < 4 {
		c.rest, c.short = nil, true
		return 0
	}
	v, c.rest = binary.LittleEndian.Uint32(c.rest), c.rest[4:]
	return v
}

func (c *cursor) uint64() (v uint64) {
	if len(c.rest) < 8 {
		c.rest, c.short = nil, true
		return 0
	}
	v, c.rest = binary.LittleEndian.Uint64(c.rest), c.rest[8:]
	return v
}

// done reports whether everything was read and nothing more.
func (c *cursor) done() bool { return !c.short && len(c.rest) == 0 }
