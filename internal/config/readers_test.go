// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strings"
	"testing"
)

// A reader is a unit or a file, named whole.
func TestReaders(t *testing.T) {
	with := func(list string) string {
		return strings.Replace(spire, "[pki]", "[keylime]\nreaders = ["+list+"]\n[pki]", 1)
	}
	c, err := load(t, with(`"backup.timer", "check@a.service", "/etc/cron.d/check"`))
	if err != nil || !slices.Equal(c.Keylime.Readers, []string{"backup.timer", "check@a.service", "/etc/cron.d/check"}) {
		t.Errorf("%v, %v", c, err)
	}
	for _, list := range []string{`"backup"`, `"*.timer"`, `"etc/cron.d/check"`, `"/etc/cron.d/../crontab"`, `""`, strings.Repeat(`"a.timer",`, 33)} {
		if _, err := load(t, with(list)); err == nil || !strings.Contains(err.Error(), "readers") {
			t.Errorf("%.40s: %v", list, err)
		}
	}
}
