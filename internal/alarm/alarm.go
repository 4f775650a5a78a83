// SPDX-License-Identifier: Apache-2.0

package alarm

import (
	"fmt"
	"time"
)

// Level is how urgent something is. Levels can be compared.
type Level int

// The levels.
const (
	None     Level = iota
	Info           // nothing is wrong yet
	Warning        // somebody should look today
	Critical       // somebody should look now
)

var names = [...]string{"none", "info", "warning", "critical"}

// String is the level's word, as it stands in status, logs and documentation.
func (l Level) String() string {
	if l < None || l > Critical {
		return fmt.Sprintf("level %d", int(l))
	}
	return names[l]
}

// MarshalText is String, for JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a level's word.
func (l *Level) UnmarshalText(text []byte) error {
	for level, name := range names {
		if string(text) == name {
			*l = Level(level)
			return nil
		}
	}
	return fmt.Errorf("%q is no level", text)
}

// The steps: which part of its life a certificate has left at most. At a third a
// renewal is due; at a fifth several have failed.
const (
	infoPart     = 3
	warningPart  = 5
	criticalPart = 10
)

// Near says how near its end a certificate is.
func Near(notBefore, notAfter, now time.Time) Level {
	life, left := notAfter.Sub(notBefore), notAfter.Sub(now)
	switch {
	case left <= life/criticalPart || left <= 0:
		return Critical
	case left <= life/warningPart:
		return Warning
	case left <= life/infoPart:
		return Info
	}
	return None
}
