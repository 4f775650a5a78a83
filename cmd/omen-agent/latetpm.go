// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"funlab.casa/omen/internal/daemon"
)

// betweenLate is how often a process may end for a TPM that the kernel had from the
// process's beginning, and that still is not among its devices.
const betweenLate = time.Hour

// lateTPM watches for a TPM that came, whenever, after systemd had given this process
// its devices (PrivateDevices=): one that only the next process will see.
type lateTPM struct {
	device  string // "" for none that can come late
	classes string // where the kernel lists its devices
	elapsed func() time.Duration
	late    time.Duration // from when on the kernel's word is enough
}

func watchTPM(device string) *lateTPM {
	w := &lateTPM{classes: "/sys/class", elapsed: daemon.WallClock{}.Elapsed}
	if strings.HasPrefix(device, "/dev/") && os.Getenv("INVOCATION_ID") != "" {
		w.device = device
	}
	return w.begin()
}

// begin notes what the process begins with: a TPM that is there, and no device of it,
// may be so for good.
func (w *lateTPM) begin() *lateTPM {
	if w.missing() {
		w.late = w.elapsed() + betweenLate
	}
	return w
}

// came is the error with which a process ends that has to see a TPM.
func (w *lateTPM) came() error {
	if !w.missing() || w.elapsed() < w.late {
		return nil
	}
	return fmt.Errorf("%s came when this process had its devices; the next one will have it", w.device)
}

// missing reports that the kernel has the TPM and this process does not.
func (w *lateTPM) missing() bool {
	if w.device == "" {
		return false
	}
	if _, err := os.Stat(w.device); !os.IsNotExist(err) {
		return false
	}
	name := filepath.Base(w.device)
	for _, class := range []string{"tpm", "tpmrm"} {
		if _, err := os.Stat(filepath.Join(w.classes, class, name)); err == nil {
			return true
		}
	}
	return false
}
