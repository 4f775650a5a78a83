// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"net/http"
	"testing"
	"time"
)

// TestClockOffset: every answer says what time it is at the server, also a refusal;
// one that does not, or says nonsense, changes nothing.
func TestClockOffset(t *testing.T) {
	var date string
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = []string{date}
		errorAnswer(403, "no")(w, r)
	})
	client := clientFor(t, n)
	if offset, known := client.ClockOffset(); known {
		t.Errorf("before the first answer: %s", offset)
	}
	ahead := time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat)
	for _, date = range []string{"", "yesterday", ahead, "", "\x1b[2J"} {
		_, _, err := client.Challenge(t.Context(), challengeRequest())
		_ = asError(t, err)
		offset, known := client.ClockOffset()
		if date == ahead && (!known || (offset-10*time.Minute).Abs() > 5*time.Second) {
			t.Errorf("%s, %t", offset, known)
		}
	}
	if offset, known := client.ClockOffset(); !known || offset < 9*time.Minute {
		t.Errorf("forgotten: %s, %t", offset, known)
	}
}
