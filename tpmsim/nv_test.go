// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

func TestDefineNV(t *testing.T) {
	device := Start(t)
	content := bytes.Repeat([]byte("vandal"), 120)
	if err := device.DefineNV(0x1c00002, tpm2.TPMANV{OwnerRead: true}, content); err != nil {
		t.Fatal(err)
	}
	if got := readNV(t, device, 0x1c00002); !bytes.Equal(got[:100], content[:100]) {
		t.Errorf("NV index holds %x", got)
	}
	if err := device.UndefineNV(0x1c00002); err != nil {
		t.Fatal(err)
	}
	if err := device.UndefineNV(0x1c00002); err == nil {
		t.Error("removed an NV index twice")
	}
}

func TestClear(t *testing.T) {
	device := Start(t)
	if err := device.Reboot(); err != nil {
		t.Fatal(err)
	}
	if err := device.Clear(); err != nil {
		t.Fatal(err)
	}
	if got := resetCount(t, device); got != 0 {
		t.Errorf("resetCount is %d", got)
	}
	if _, err := (tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}).Execute(device); err == nil {
		t.Error("a persistent key survived")
	}
}
