// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/order"
)

// TestGeneratorByItsName: under that name the program is the generator, which never
// fails and, where nothing is configured, writes nothing.
func TestGeneratorByItsName(t *testing.T) {
	if _, err := os.Stat(config.DefaultPath); err == nil {
		t.Fatalf("this machine has an agent: %s", config.DefaultPath)
	}
	dir := t.TempDir()
	program, link := filepath.Join(dir, "omen-agent"), filepath.Join(dir, order.Program)
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "normal")
	for _, args := range [][]string{{folder, folder, folder}, {"run"}, {}, {"--help", "x"}} {
		out, err := exec.Command(link, args...).Output()
		if err != nil || len(out) > 0 {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}
