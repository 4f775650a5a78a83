// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"os"
	"slices"
	"syscall"
)

// mayRead reports that mode bits let the component's user do want (4 read, 1 pass).
// A component that starts as root reads its configuration as root.
func (d DropIn) mayRead(mode uint32, uid, gid int, want uint32) bool {
	switch {
	case d.UID == 0 || d.Profile.RunsAs:
		return true
	case uid == d.UID:
		return mode>>6&want == want
	case gid == d.GID || slices.Contains(d.Groups, gid):
		return mode>>3&want == want
	}
	return mode&want == want
}

func (d DropIn) mayOpen(info os.FileInfo, want uint32) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || d.mayRead(stat.Mode, int(stat.Uid), int(stat.Gid), want)
}
