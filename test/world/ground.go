// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// layGround makes what all hosts share: a file system in memory over dir, this
// process namespace's own /proc, and a loopback interface.
func layGround(dir string) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("omen", dir, "tmpfs", unix.MS_NODEV, "mode=0711"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return err
	}
	return ip("link", "set", "lo", "up")
}

// addAddress gives the world one more address.
func addAddress(address string) error {
	return ip("address", "replace", address+"/32", "dev", "lo")
}

func ip(args ...string) error {
	output, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %v: %w: %s (apt-get install iproute2)", args, err, output)
	}
	return nil
}
