// SPDX-License-Identifier: Apache-2.0

//go:build long

package faults_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"
)

// filler is what takes the room.
const filler = "/filler"

// small moves a folder to a file system in memory with these options, in a shell.
func small(folder, options string) string {
	return "cp -a " + folder + " /var/lib/moved && mount -t tmpfs -o mode=0711," + options + " small " + folder +
		" && cp -a /var/lib/moved/. " + folder + "/ && rm -r /var/lib/moved"
}

// fill leaves no block of a file system free.
func fill(folder string) string {
	return "dd if=/dev/zero of=" + folder + filler + " bs=4k 2>/dev/null; test -s " + folder + filler
}

// diskOutages leave no room where the agent writes: on the disk, and where plain keys are.
func diskOutages(t *testing.T) []outage {
	sh := func(script string) func(*machine) {
		return func(m *machine) { check(m.Must(context.WithoutCancel(t.Context()), "sh", "-c", script))(t) }
	}
	const files = "mkdir " + stateDir + filler + "; i=0; while true > " + stateDir + filler + "/$i; do i=$((i+1)); done 2>/dev/null; true"
	return []outage{
		{
			name: "disk full", mute: true, steps: []string{"install"}, says: "free some space",
			begin: sh(small(stateDir, "size=256k") + " && { " + fill(stateDir) + "; }"), mend: sh("rm " + stateDir + filler),
		},
		{
			name: "no inode free", mute: true, steps: []string{"install"}, says: "free some space",
			begin: sh(small(stateDir, "size=1m,nr_inodes=80") + " && { " + files + "; }"), mend: sh("rm -r " + stateDir + filler),
		},
		{
			name: "no memory for plain keys", steps: []string{"install"}, says: "free some space",
			begin: sh(small("/run/omen-agent", "size=64k") + " && { " + fill("/run/omen-agent") + "; }"), mend: sh("rm /run/omen-agent" + filler),
		},
		{
			name: "disk read-only", mute: true, steps: []string{"install"}, says: "make /var/lib/omen-agent and /etc/keylime writable",
			begin: sh(small(stateDir, "size=256k") + " && mount -o remount,ro " + stateDir), mend: sh("mount -o remount,rw " + stateDir),
		},
	}
}

// TestDiskAlmostFull renews with less and less in the way: every write of a renewal is
// once the first for which there is no room. Whatever fails, the host has a whole set.
func TestDiskAlmostFull(t *testing.T) {
	ctx, _, all := newLab(t, 4*time.Minute, "disk", "memory")
	for i, folder := range []string{stateDir, "/run/omen-agent"} {
		t.Run(folder, func(t *testing.T) {
			m := all[i]
			check(m.Must(ctx, "sh", "-c", small(folder, "size=256k")))(t)
			for free := 0; !m.renewsWith(ctx, t, folder, free); free++ {
				if free > 40 {
					t.Fatal("it never renews")
				}
			}
		})
	}
}

// renewsWith renews with so many pages free, and reports that all was well.
func (m *machine) renewsWith(ctx context.Context, t *testing.T, folder string, free int) bool {
	t.Helper()
	m.before = m.state(ctx, t)
	check(m.Must(ctx, "sh", "-c", fill(folder)+"; truncate -s -"+strconv.Itoa(free*4096)+" "+folder+filler))(t)
	r := check(m.Run(ctx, "/usr/bin/omen-agent", "renew"))(t)
	check(m.Must(ctx, "rm", folder+filler))(t)
	now := m.state(ctx, t)
	if !now.served.Equal(now.agent) {
		t.Errorf("%d pages free: %x is served, and %x installed", free, now.served.SerialNumber, now.agent.SerialNumber)
	}
	m.wantNothingLeft(ctx, t)
	written := !strings.Contains(r.Stderr, "is not written")
	switch {
	case r.Code == 0:
		m.wantNew(t, now)
	case r.Code != 7 || !strings.Contains(r.Stderr, "no space left on device") || !strings.Contains(r.Stderr, "hint: free some space"):
		t.Errorf("%d pages free: %v", free, r.Unexpected(m.Host, 7))
	case now.agent.Equal(m.before.agent) != now.served.Equal(m.before.served):
		t.Errorf("%d pages free: half a set", free)
	}
	t.Logf("%d pages free: exit code %d, all written: %v", free, r.Code, written)
	return r.Code == 0 && written
}
