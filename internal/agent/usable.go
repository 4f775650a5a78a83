// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// Usable reports that services can start with what is installed: every certificate is
// there, valid now, and its key where it is read.
func (s *Status) Usable(now time.Time) bool {
	for _, c := range s.Certificates {
		if c.Serial == "" || c.Key.NotGiven || now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return false
		}
	}
	return true
}

// FirstEnd is when the first of the installed certificates ends, zero where none is.
func (s *Status) FirstEnd() (first time.Time) {
	for _, c := range s.Certificates {
		if c.Serial != "" && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}

// Left is how long all installed certificates are still valid.
func (s *Status) Left(now time.Time) time.Duration { return max(s.FirstEnd().Sub(now), 0) }

// Early reports until when the clock shows a time at which an installed certificate was
// not made yet: it is this machine's clock that is wrong. Zero is not.
func (s *Status) Early(now time.Time) (until time.Time) {
	for _, c := range s.Certificates {
		if c.Serial != "" && now.Before(c.NotBefore) && c.NotBefore.After(until) {
			until = c.NotBefore
		}
	}
	return until
}
