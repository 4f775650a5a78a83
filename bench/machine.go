// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/test/cluster"
)

// machine says where and with what was measured.
func machine(ctx context.Context, dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores of %s, Linux %s, %s", time.Now().UTC().Format(time.DateOnly),
		runtime.NumCPU(), processor(), kernel(), runtime.Version())
	if bao, err := cluster.FindBao(); err == nil {
		if version, err := exec.CommandContext(ctx, bao, "version").Output(); err == nil {
			fmt.Fprintf(&b, ", %s", strings.Join(strings.Fields(string(version))[:2], " "))
		}
	}
	if sync, err := syncTime(dir); err == nil {
		fmt.Fprintf(&b, ", a disk that syncs 4 KiB in %.2f ms (median)", sync.Seconds()*1000)
	}
	b.WriteString(".\n")
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

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// syncTime is how long the disk takes to make one page durable: what a service
// token costs depends on it, a batch token's does not.
func syncTime(dir string) (time.Duration, error) {
	place, err := os.MkdirTemp(dir, "omen-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(place) }()
	file, err := os.Create(filepath.Join(place, "page"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	page, times := make([]byte, 4096), make([]time.Duration, 101)
	for i := range times {
		if _, err := file.WriteAt(page, int64(i%32)*4096); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return 0, err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
