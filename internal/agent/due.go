// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// renewBy is the server's hint as a time: not sooner than a minute, whatever it
// says. Zero is no hint.
func renewBy(now time.Time, after time.Duration) time.Time {
	if after == 0 {
		return time.Time{}
	}
	return now.Add(max(after, time.Minute))
}

// bounded is when to renew: two thirds through a certificate's life, or earlier
// where the server says so.
func bounded(due, by time.Time) time.Time {
	if by.IsZero() {
		return due
	}
	return earlier(due, by)
}
