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

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// done reports whether everything was read and nothing more.
func (c *cursor) done() bool { return !c.short && len(c.rest) == 0 }
