// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"funlab.casa/omen/bench/herd"
	"funlab.casa/omen/bench/logins"
	"funlab.casa/omen/bench/verification"
	"funlab.casa/omen/test/world"
)

// A group is figures that are measured together.
type group struct {
	name    string
	measure func(context.Context, *bench) (map[string]float64, error)
}

// groups in the order in which they are measured: what a busy machine disturbs
// most comes first.
var groups = []group{
	{"verification", func(ctx context.Context, b *bench) (map[string]float64, error) {
		return verification.Measure(ctx, b.pick(31, 11))
	}},
	{"single", func(ctx context.Context, b *bench) (map[string]float64, error) {
		return logins.Single(ctx, b.logins())
	}},
	{"raft3", func(ctx context.Context, b *bench) (map[string]float64, error) {
		return logins.Raft3(ctx, b.logins())
	}},
	{"herd", func(ctx context.Context, b *bench) (map[string]float64, error) {
		return herd.Measure(ctx, b.herd())
	}},
	{"agent", func(ctx context.Context, b *bench) (map[string]float64, error) {
		return inWorld(ctx, b, agentPart)
	}},
	{"services", func(ctx context.Context, b *bench) (map[string]float64, error) {
		return inWorld(ctx, b, servicesPart)
	}},
}

func names() string {
	list := make([]string, len(groups))
	for i, g := range groups {
		list[i] = g.name
	}
	return strings.Join(list, ", ")
}

// bench is one run: how long to measure, with what, and what came of it.
type bench struct {
	short   bool
	data    string // where servers keep their data
	tools   world.Tools
	dir     string // of programs built for this run
	figures map[string]float64
	remarks []string // what was measured beside the figures
}

func newBench(short bool, data string) (*bench, error) {
	tools, err := world.FindTools()
	if err != nil {
		return nil, err
	}
	b := &bench{short: short, data: data, tools: tools, figures: map[string]float64{}}
	if b.dir, err = os.MkdirTemp("", "omen-bench-"); err != nil {
		return nil, err
	}
	return b, nil
}

// Close removes what was built.
func (b *bench) Close() { _ = os.RemoveAll(b.dir) }

func (b *bench) run(ctx context.Context, chosen []group) error {
	if err := b.buildNull(ctx); err != nil {
		return err
	}
	for _, g := range chosen {
		began := time.Now()
		figures, err := g.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		maps.Copy(b.figures, figures)
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", g.name, time.Since(began).Round(time.Second))
	}
	return nil
}

// buildNull builds the plugin that does nothing as the real one is built.
func (b *bench) buildNull(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.null(), "./null")
	cmd.Dir = filepath.Join(b.tools.Module, "bench")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("build the null plugin: %s", text), err)
	}
	return nil
}

func (b *bench) null() string { return filepath.Join(b.dir, "null") }

func (b *bench) tpm() string { return filepath.Join(b.tools.Bin, world.PluginName) }

// pick is a number of the whole run or of the short one.
func (b *bench) pick(whole, short int) int {
	if b.short {
		return short
	}
	return whole
}

// remark notes what is worth knowing beside the figures.
func (b *bench) remark(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	b.remarks = append(b.remarks, line)
	fmt.Fprintln(os.Stderr, "bench:", line)
}

func (b *bench) logins() logins.Options {
	return logins.Options{
		Plugins: logins.Plugins{TPM: b.tpm(), Null: b.null()}, Parent: b.data,
		Rounds: b.pick(9, 5), Slice: time.Duration(b.pick(3000, 1000)) * time.Millisecond, Report: b.remark,
	}
}

func (b *bench) herd() herd.Options {
	return herd.Options{Plugin: b.tpm(), Parent: b.data, Hosts: b.pick(10_000, 1000), Part: b.pick(1000, 100), Rounds: b.pick(3, 1), Report: b.remark}
}
