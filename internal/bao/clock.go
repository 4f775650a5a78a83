// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"net/http"
	"sync"
	"time"
)

// clock is what the answers say of the time. The library makes no promise about
// who calls back.
type clock struct {
	mutex  sync.Mutex
	offset time.Duration
	known  bool
}

// note reads the Date of an answer (RFC 9110, section 6.6.1), which is in seconds.
// Without one nothing is learnt.
func (c *clock) note(header http.Header) {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.offset, c.known = date.Sub(time.Now().Truncate(time.Second)), true
}

// ClockOffset is the clock of the server that answered last minus this host's, to
// about a second; unknown before the first answer. It is for hints, never for
// decisions.
func (c *Client) ClockOffset() (offset time.Duration, known bool) {
	c.clock.mutex.Lock()
	defer c.clock.mutex.Unlock()
	return c.clock.offset, c.clock.known
}
