// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/test/cluster"
)

// versions of the plugin, all built from this tree: what runs, and what it is
// upgraded to.
var versions = []string{"v0.1.0", "v0.1.1", "v0.1.2"}

const pluginBinary = "openbao-plugin-auth-tpm"

var built string // directory with one binary for each version

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "omen-plugins-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		built, err = dir, build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	for _, version := range versions {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -X funlab.casa/omen/plugin.Version="+version,
			"-o", filepath.Join(dir, version), "../../cmd/"+pluginBinary)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build plugin %s: %w\n%s", version, err, out)
		}
	}
	return nil
}

func pluginOf(version string) cluster.Plugin {
	return cluster.Plugin{Name: "tpm", Version: version, Binary: filepath.Join(built, version)}
}

// start starts a cluster that ends with the test; when the test fails, the end
// of each node's log is shown.
func start(t *testing.T, config cluster.Config) *cluster.Cluster {
	t.Helper()
	began := time.Now()
	c, err := cluster.Start(t.Context(), config)
	check(t, err)
	t.Logf("cluster of %d after %s", len(c.Nodes), since(began))
	t.Cleanup(func() {
		for _, n := range c.Nodes {
			if text, err := os.ReadFile(n.LogFile()); err == nil && t.Failed() {
				t.Logf("%s says at last:\n%s", n.Name, text[max(0, len(text)-4000):])
			}
		}
		check(t, c.Close())
	})
	return c
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func since(began time.Time) time.Duration { return time.Since(began).Round(time.Millisecond) }
