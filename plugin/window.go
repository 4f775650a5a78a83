// SPDX-License-Identifier: Apache-2.0

package plugin

import "sync"

// windowSize is how many of the last counters can still be spent: 256 KiB of
// bits, and more challenges than one node can issue while one is valid.
const windowSize = 1 << 21

// window issues counters and remembers which of the last windowSize were spent.
// A counter is spent once and for ever: nothing takes it back.
type window struct {
	mu   sync.Mutex
	next uint64
	bits [windowSize / 64]uint64
}

// issue gives a counter that was never given before.
func (w *window) issue() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	counter := w.next
	w.next++
	word, bit := slot(counter)
	w.bits[word] &^= bit // was the counter that now falls out of the window
	return counter
}

// spend reports whether counter was issued, is not too old and was not spent
// before; from then on it is.
func (w *window) spend(counter uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if counter >= w.next || w.next-counter > windowSize {
		return false
	}
	word, bit := slot(counter)
	if w.bits[word]&bit != 0 {
		return false
	}
	w.bits[word] |= bit
	return true
}

func slot(counter uint64) (word, bit uint64) {
	i := counter % windowSize
	return i / 64, 1 << (i % 64)
}
