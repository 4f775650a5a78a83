// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// figures are what was measured, by name.
type figures map[string]float64

// meaning says what each figure is and, where there is one, its bound.
var meaning = map[string]string{
	"tpm_commands_renewal_file":    "TPM commands of one renewal with file keys, AK pinned and persisted; wanted: 1",
	"agent_own_ms_per_certificate": "ms of the agent's own work (all but network, restarts and probes) per certificate; wanted: under 10",
	"agent_own_over_bare_parts":    "the agent's own work ÷ its bare parts (one quote; key, CSR and chain check per certificate; the same files written and fsynced); wanted: at most 2",
	"agent_binary_mib":             "MiB of omen-agent, static",
}

// write prints the figures and writes both forms of them below module.
func (f figures) write(module string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(module, "bench", "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	page := f.page()
	fmt.Print(page)
	return os.WriteFile(filepath.Join(module, "bench", "RESULTS.md"), []byte(page), 0o644)
}

func (f figures) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measurements\n\n%s, %s, %d cores of %s, swtpm as TPM, state in memory. Repeat with `make bench`.\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.NumCPU(), processor())
	b.WriteString("Each ratio is the median of seven pairs taken in turn in one run.\n\n| figure | value | meaning |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(&b, "| `%s` | %.3g | %s |\n", name, f[name], meaning[name])
	}
	return b.String()
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}
