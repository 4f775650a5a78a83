// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// head is how much of a file tells a text from a program, in bytes.
const head = 512

// readText reads a text, and of everything else the head.
func readText(file io.Reader, limit int) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(file, head))
	if err != nil || !isText(string(content)) {
		return content, err
	}
	rest, err := io.ReadAll(io.LimitReader(file, int64(max(limit-head, 0))))
	return append(content, rest...), err
}

// reader reads a descriptor that does not block. What has nothing to give yet ends
// here; an os.File would wait for it, and cannot be told to stop.
type reader struct {
	ctx context.Context
	fd  int
}

func (r reader) Read(into []byte) (int, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := unix.Read(r.fd, into)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return 0, io.EOF
		default:
			return max(n, 0), err
		}
	}
}

// pseudo are the file systems whose files the kernel makes up: some have no end, some
// wait, some give to one reader what another needs, and none is a script.
//
// These are listed and not the others, since an ordinary file system that is missing in
// a list (ZFS, say) would hide every rival on it. One that is missing here still gives
// no more than maxFile bytes, and is not waited for where it heeds O_NONBLOCK.
var pseudo = map[uint32]bool{
	unix.AAFS_MAGIC:            true, // of AppArmor
	unix.BINDERFS_SUPER_MAGIC:  true,
	unix.BINFMTFS_MAGIC:        true,
	unix.BPF_FS_MAGIC:          true,
	unix.CGROUP_SUPER_MAGIC:    true,
	unix.CGROUP2_SUPER_MAGIC:   true,
	unix.DEBUGFS_MAGIC:         true,
	unix.DEVPTS_SUPER_MAGIC:    true,
	unix.EFIVARFS_MAGIC:        true,
	unix.NSFS_MAGIC:            true,
	unix.OPENPROM_SUPER_MAGIC:  true,
	unix.PROC_SUPER_MAGIC:      true,
	unix.PSTOREFS_MAGIC:        true,
	unix.RDTGROUP_SUPER_MAGIC:  true, // resctrl
	unix.SECURITYFS_MAGIC:      true,
	unix.SELINUX_MAGIC:         true,
	unix.SMACK_MAGIC:           true,
	unix.SYSFS_MAGIC:           true,
	unix.TRACEFS_MAGIC:         true,
	unix.USBDEVICE_SUPER_MAGIC: true,
	unix.XENFS_SUPER_MAGIC:     true,
	0x62656570:                 true, // configfs
	0x19800202:                 true, // mqueue
	0x65735543:                 true, // fusectl
	0x6e667364:                 true, // nfsd
	0x67596969:                 true, // rpc_pipefs
	0xa647361:                  true, // functionfs
	0xaee71ee7:                 true, // gadgetfs
}

func isPseudo(fd int) (bool, error) {
	var stat unix.Statfs_t
	err := unix.Fstatfs(fd, &stat)
	return pseudo[uint32(stat.Type)], err
}
