// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRead reads what Load would refuse, and nothing that others could have written.
func TestRead(t *testing.T) {
	path := filepath.Join(folder(t), "agent.toml")
	if _, err := Read(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	write(t, path, "later = 1\n[pki]\nanchor = \"/not/mounted/yet.pem\"\n[[certificate]]\nname = \"web\"\nprofile = \"general\"\n", 0o644)
	c, err := Read(path)
	if err != nil || len(c.Certificates) != 1 || c.TPM.Device != "/dev/tpmrm0" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := Load(path); err == nil {
		t.Error("Load takes it")
	}
	write(t, path, "[[certificate]]\n", 0o666)
	if _, err := Read(path); !errors.Is(err, errUntrusted) {
		t.Errorf("one that everybody can write: %v", err)
	}
}
