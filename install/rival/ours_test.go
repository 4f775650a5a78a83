// SPDX-License-Identifier: Apache-2.0

package rival_test

import (
	"slices"
	"testing"
)

// TestOurs: an operator who has omen-agent renew by a way of his own is found, and what
// only looks like it, or is switched off, is not.
func TestOurs(t *testing.T) {
	h := newHost(t)
	ours := func() []string {
		t.Helper()
		found, err := h.search().Ours(t.Context())
		h.must(err)
		return found
	}
	h.write("/etc/systemd/system/omen-agent.service", "[Service]\nExecStart=/usr/bin/omen-agent run\n", 0o644)
	h.link("/etc/systemd/system/omen-agent.service", "/etc/systemd/system/multi-user.target.wants/omen-agent.service")
	h.write("/etc/systemd/system/check.service", "[Service]\nExecStart=/usr/bin/omen-agent verify\n", 0o644)
	h.link("/etc/systemd/system/check.service", "/etc/systemd/system/multi-user.target.wants/check.service")
	h.write("/etc/systemd/system/renew.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/omen-agent --log-format json renew\n", 0o644)
	h.write("/etc/systemd/system/nightly.timer", "[Timer]\nOnCalendar=daily\nUnit=renew.service\n", 0o644)
	h.write("/etc/crontab", "# 0 1 * * * root omen-agent renew\n0 1 * * * root omen-agent status\n", 0o644)
	h.write("/etc/cron.daily/omen", "#!/bin/sh\n# omen-agent renew is elsewhere\nomen-agent status\n", 0o755)
	if found := ours(); len(found) != 0 {
		t.Errorf("nothing is switched on: %v", found)
	}
	h.link("/etc/systemd/system/nightly.timer", wants+"nightly.timer")
	h.write("/etc/systemd/system/own.service", "[Service]\nExecStart=/opt/omen-agent run\n", 0o644)
	h.link("/etc/systemd/system/own.service", "/etc/systemd/system/multi-user.target.wants/own.service")
	h.write("/etc/crontab", "17 1 * * * root /usr/bin/omen-agent renew --certificate web\n", 0o644)
	h.write("/etc/cron.daily/omen", "#!/bin/sh\nomen-agent renew\n", 0o755)
	if found := ours(); !slices.Equal(found, []string{"nightly.timer", "own.service", "/etc/crontab:1", "/etc/cron.daily/omen"}) {
		t.Errorf("found %v", found)
	}
}
