// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ubuntu is a real event log of 45 kB with 116 events: firmware, shim, GRUB and
// kernel of an Ubuntu 24.04.
const (
	ubuntuModule = "github.com/google/go-eventlog@v0.0.2"
	ubuntuFile   = "testdata/eventlogs/tpm/ubuntu-2404-amd-sevsnp.bin"
)

// UbuntuLog reads a real event log from the Go module cache.
func UbuntuLog(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", ubuntuModule)
	cmd.Dir = os.TempDir() // no module: the log is not among what is linked
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("download %s: %w: %s", ubuntuModule, err, text)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(text, &module); err != nil {
		return nil, fmt.Errorf("download %s: %w", ubuntuModule, err)
	}
	return os.ReadFile(filepath.Join(module.Dir, ubuntuFile))
}
