// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A TPM that comes late ends the process at once; one that the kernel had already, and
// that does not become a device of the process, once an hour.
func TestLateTPM(t *testing.T) {
	for name, row := range map[string]struct {
		first, then []string // files: "node", "tpm", "tpmrm"
		after       time.Duration
		want        bool
	}{
		"none":                       {nil, nil, 100 * time.Hour, false},
		"there":                      {[]string{"tpmrm", "node"}, []string{"tpmrm", "node"}, 100 * time.Hour, false},
		"a link, or no driver":       {[]string{"node"}, []string{"node"}, 0, false},
		"late":                       {nil, []string{"tpmrm"}, 0, true},
		"late, hours after the boot": {nil, []string{"tpmrm"}, 100 * time.Hour, true},
		"of the other class":         {nil, []string{"tpm"}, 0, true},
		"it came for us too":         {nil, []string{"tpmrm", "node"}, 0, false},
		"never a device":             {[]string{"tpmrm"}, []string{"tpmrm"}, 59 * time.Minute, false},
		"never a device, in an hour": {[]string{"tpmrm"}, []string{"tpmrm"}, time.Hour, true},
	} {
		dir, now := t.TempDir(), 50*time.Hour
		lay := func(names []string) {
			for _, one := range names {
				path := filepath.Join(dir, "class", one, "tpmrm7")
				if one == "node" {
					path = filepath.Join(dir, "tpmrm7")
				}
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
		}
		lay(row.first)
		w := (&lateTPM{device: filepath.Join(dir, "tpmrm7"), classes: filepath.Join(dir, "class"), elapsed: func() time.Duration { return now }}).begin()
		if err := w.came(); err != nil {
			t.Errorf("%s: ended at its beginning: %v", name, err)
		}
		lay(row.then)
		now += row.after
		if err := w.came(); (err != nil) != row.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Only systemd takes devices away, and only from below /dev.
func TestLateTPMOfNobody(t *testing.T) {
	for device, invocation := range map[string]string{"/dev/tpmrm0": "", "unix:/run/tpm": "1", "tcp:localhost:2321": "1"} {
		t.Setenv("INVOCATION_ID", invocation)
		if w := watchTPM(device); w.device != "" || w.came() != nil {
			t.Errorf("%s is waited for", device)
		}
	}
	t.Setenv("INVOCATION_ID", "1")
	if w := watchTPM("/dev/tpmrm0"); w.device != "/dev/tpmrm0" || w.classes != "/sys/class" {
		t.Errorf("%+v", w)
	}
}
