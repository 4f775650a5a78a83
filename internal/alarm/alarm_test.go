// SPDX-License-Identifier: Apache-2.0

package alarm

import (
	"encoding/json"
	"testing"
	"time"
)

// TestNear: the steps are parts of the lifetime, whatever that is.
func TestNear(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, life := range []time.Duration{5 * time.Minute, 24 * time.Hour, 90 * 24 * time.Hour, 10 * year, 200 * year} {
		begin := time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC)
		end := begin.Add(life)
		for _, row := range []struct {
			left time.Duration
			want Level
		}{
			{life + time.Hour, None}, // this clock is behind
			{life, None},
			{life/3 + time.Second, None},
			{life / 3, Info},
			{life/5 + time.Second, Info},
			{life / 5, Warning},
			{life/10 + time.Second, Warning},
			{life / 10, Critical},
			{time.Second, Critical},
			{0, Critical},
			{-time.Hour, Critical},
		} {
			if got := Near(begin, end, end.Add(-row.left)); got != row.want {
				t.Errorf("%s of %s left: %s, not %s", row.left, life, got, row.want)
			}
		}
	}
}

// A certificate that ends before it begins is of no use.
func TestNearOfNonsense(t *testing.T) {
	now := time.Now()
	if got := Near(now.Add(2*time.Hour), now.Add(time.Hour), now.Add(90*time.Minute)); got != Critical {
		t.Errorf("%s", got)
	}
}

func TestLevelsHaveWords(t *testing.T) {
	for level, word := range map[Level]string{None: `"none"`, Info: `"info"`, Warning: `"warning"`, Critical: `"critical"`} {
		text, err := json.Marshal(level)
		if err != nil || string(text) != word {
			t.Errorf("%s, %v", text, err)
		}
		var back Level
		if err := json.Unmarshal(text, &back); err != nil || back != level {
			t.Errorf("%s: %s, %v", text, back, err)
		}
	}
	var l Level
	if err := l.UnmarshalText([]byte("urgent")); err == nil {
		t.Error("a word of nobody is a level")
	}
	if got := Level(7).String(); got != "level 7" {
		t.Errorf("%s", got)
	}
}
