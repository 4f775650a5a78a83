// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Start runs a device for the length of a test: number 0 of this test binary.
// Each call starts a clone of its own, so that tests do not see each other,
// and at the end of the test every object or session left in it is an error of
// the test.
func Start(t testing.TB) *TPM {
	t.Helper()
	return Device(t, 0)
}

// StartN runs n devices at once, numbers 0 to n-1, each another machine.
func StartN(t testing.TB, n int) []*TPM {
	t.Helper()
	devices := make([]*TPM, n)
	for i := range devices {
		devices[i] = Device(t, i)
	}
	return devices
}

// Device is Start for device number i. Different numbers have different
// endorsement keys; the same number is the same machine, cloned.
func Device(t testing.TB, i int) *TPM {
	t.Helper()
	state := DeviceState(t, i)
	device, err := state.Start(Options{})
	fatalOnError(t, err)
	t.Cleanup(func() { finish(t, device) })
	return device
}

// DeviceState is the state of device number i, off, in a directory of the
// test's own.
func DeviceState(t testing.TB, i int) *State {
	t.Helper()
	image, err := vendor.device(i)
	fatalOnError(t, err)
	dir := directory(t)
	fatalOnError(t, image.write(dir))
	return &State{dir: dir}
}

// TestCA is the vendor that made all numbered devices of this test binary, in
// a directory of the test's own.
func TestCA(t testing.TB) *CA {
	t.Helper()
	_, err := vendor.device(0)
	fatalOnError(t, err)
	dir := directory(t)
	fatalOnError(t, vendor.ca.write(dir))
	ca, err := NewCA(dir)
	fatalOnError(t, err)
	return ca
}

// directory is t.TempDir without the test's name in its path: a comma there
// would end swtpm's option.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpmsim")
	fatalOnError(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("tpmsim: %v", err)
		}
	})
	return dir
}

// fatalOnError ends the test: a device that cannot be had is never a skip.
func fatalOnError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("tpmsim: %v", err)
	}
}

// finish is the leak check.
func finish(t testing.TB, device *TPM) {
	t.Helper()
	if err := device.Stop(); err != nil {
		t.Errorf("tpmsim: stop TPM: %v", err)
	}
	leaks, err := device.Leaks()
	if err != nil {
		t.Errorf("tpmsim: %v", err)
	}
	for _, handle := range leaks {
		t.Errorf("tpmsim: %s 0x%08x was left in the TPM", kindOf(uint32(handle)>>24), uint32(handle))
	}
}

func kindOf(handleType uint32) string {
	switch handleType {
	case 0x80:
		return "object"
	case 0x02, 0x03:
		return "session"
	}
	return "handle"
}

// vendor is shared by the tests of one binary, because manufacturing is slow.
// It lives in memory: a test binary has no last moment for removing files.
var vendor factory

type factory struct {
	mu      sync.Mutex
	ca      files
	devices map[int]files
}

func (f *factory) device(i int) (files, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if image, ok := f.devices[i]; ok {
		return image, nil
	}
	image, err := f.manufacture(fmt.Sprintf("device-%d", i))
	if err != nil {
		return nil, err
	}
	if f.devices == nil {
		f.devices = map[int]files{}
	}
	f.devices[i] = image
	return image, nil
}

func (f *factory) manufacture(name string) (files, error) {
	dir, err := os.MkdirTemp("", "tpmsim")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err = f.ca.write(dir); err != nil {
		return nil, err
	}
	ca, err := NewCA(dir)
	if err != nil {
		return nil, err
	}
	state, err := ca.Manufacture(name)
	if err != nil {
		return nil, err
	}
	if f.ca, err = readFiles(dir); err != nil {
		return nil, err
	}
	return readFiles(filepath.Clean(state.Dir()))
}
