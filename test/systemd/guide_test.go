// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"errors"
	"os"
	"strings"
	"testing"

	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/rival"
	"funlab.casa/omen/test/page"
)

// guide is docs/guide.md, inside.
const guide = "/opt/omen/guide.md"

// timerLines are the lines of the guide about the timer of before.
func timerLines(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, b := range page.Blocks(string(text)) {
		if b.Lang != "console" {
			continue
		}
		exchanges, err := page.Exchanges(b.Text)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range exchanges {
			if strings.HasPrefix(e.Command, "systemctl ") && strings.HasSuffix(e.Command, " "+seedTimer) {
				lines = append(lines, e.Command)
			}
		}
	}
	return lines
}

// TestGuideTimer types what the guide says of the timer of before, which its rehearsal
// (test/guide) cannot: there is no systemd. After the way there it renews nothing, and
// nothing holds omen-agent back; after the way back it is as it was.
func TestGuideTimer(t *testing.T) {
	m := newMachine(t)
	m.layRenewal()
	m.systemctl("enable", "--now", seedTimer)
	done := map[bool]int{}
	for _, line := range timerLines(t) {
		m.run("/usr/bin/env", strings.Fields(line)...)
		err, off := rival.Refusal(m.search()), strings.HasPrefix(line, "systemctl disable ")
		done[off]++
		if off {
			m.expect(seedTimer, map[string]string{"ActiveState": "inactive", "UnitFileState": "disabled"})
			if err != nil {
				t.Errorf("after %s: %v", line, err)
			}
			continue
		}
		m.expect(seedTimer, map[string]string{"ActiveState": "active", "UnitFileState": "enabled"})
		if !errors.Is(err, rival.ErrActive) || remedy.Of(err) != strings.Replace(line, "enable", "disable", 1) {
			t.Errorf("after %s: %v, hint %q", line, err, remedy.Of(err))
		}
	}
	if done[true] == 0 || done[false] == 0 {
		t.Errorf("the guide has %d lines that switch the timer off, %d that switch it on", done[true], done[false])
	}
}
