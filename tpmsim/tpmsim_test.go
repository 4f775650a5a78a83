// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
)

func TestManufacture(t *testing.T) {
	dir := t.TempDir()
	ca, err := NewCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	state, err := ca.Manufacture("first")
	if err != nil {
		t.Fatal(err)
	}
	device, err := state.Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if stopped := device.Stop(); stopped != nil {
			t.Error(stopped)
		}
	}()
	for _, index := range []tpm2.TPMHandle{0x1c00002, 0x1c00016} {
		checkCertificate(t, ca, readNV(t, device, index))
	}
	again, err := NewCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Root().Equal(ca.Root()) || !bytes.Equal(again.PEM(), ca.PEM()) {
		t.Error("the vendor changed when it was opened again")
	}
	if _, err := ca.Manufacture("two words"); err == nil {
		t.Error("manufactured a device with a bad name")
	}
}

func checkCertificate(t *testing.T, ca *CA, der []byte) {
	t.Helper()
	certificate, err := attest.ParseEKCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	// The critical TCG subject alternative name is the verifier's business.
	certificate.UnhandledCriticalExtensions = nil
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.Root())
	intermediates.AddCert(ca.Issuer())
	_, err = certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		t.Error(err)
	}
}

func readNV(t *testing.T, device *TPM, index tpm2.TPMHandle) []byte {
	t.Helper()
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	contents, err := public.NVPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	read, err := tpm2.NVRead{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
		Size:       contents.DataSize,
	}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	return read.Data.Buffer
}

func TestIssueIsSignedByTheVendor(t *testing.T) {
	ca := TestCA(t)
	der, err := ca.Issue(&x509.Certificate{SerialNumber: ca.Root().SerialNumber}, ca.Root().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.CheckSignatureFrom(ca.Issuer()); err != nil {
		t.Error(err)
	}
}

func TestCloneIsTheSameMachine(t *testing.T) {
	state := DeviceState(t, 0)
	clone, err := state.CloneTo(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range []*State{state, clone} {
		device, err := s.Start(Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer finish(t, device)
		names[endorsementName(t, device)] = true
	}
	if len(names) != 1 {
		t.Error("the clone has another endorsement key")
	}
	if other := endorsementName(t, Device(t, 1)); names[other] {
		t.Error("another device has the same endorsement key")
	}
}

func endorsementName(t *testing.T, device *TPM) string {
	t.Helper()
	public, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	return string(public.Name.Buffer)
}

func TestCloneOfClone(t *testing.T) {
	clone, err := DeviceState(t, 0).Clone()
	if err != nil {
		t.Fatal(err)
	}
	opened, err := OpenState(clone.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(clone.Dir()); err == nil {
		t.Error("opened a device that was removed")
	}
}

func resetCount(t *testing.T, device *TPM) uint32 {
	t.Helper()
	clock, err := tpm2.ReadClock{}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	return clock.CurrentTime.ClockInfo.ResetCount
}

func TestRebootRaisesResetCount(t *testing.T) {
	device := Start(t)
	before, pid := resetCount(t, device), device.Pid()
	for range 3 {
		if err := device.Reboot(); err != nil {
			t.Fatal(err)
		}
	}
	if got := resetCount(t, device); got != before+3 {
		t.Errorf("resetCount %d after three reboots, was %d", got, before)
	}
	if device.Pid() == pid {
		t.Error("the process is the same after a reboot")
	}
}

func TestExtend(t *testing.T) {
	device := Start(t)
	digest := bytes.Repeat([]byte{7}, 32)
	if err := device.Extend(16, tpm2.TPMAlgSHA256, digest); err != nil {
		t.Fatal(err)
	}
	want, err := tpm2.TPMAlgSHA256.Hash()
	if err != nil {
		t.Fatal(err)
	}
	hash := want.New()
	hash.Write(append(make([]byte, 32), digest...))
	got, err := device.PCR(16, tpm2.TPMAlgSHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, hash.Sum(nil)) {
		t.Errorf("PCR 16 is %x", got)
	}
	for name, err := range map[string]error{
		"short digest": device.Extend(16, tpm2.TPMAlgSHA256, digest[:20]),
		"no such PCR":  device.Extend(24, tpm2.TPMAlgSHA256, digest),
		"no such hash": device.Extend(16, tpm2.TPMAlgNull, digest),
	} {
		if err == nil {
			t.Errorf("%s: extended", name)
		}
	}
}

func TestSeveralAtOnce(t *testing.T) {
	devices := StartN(t, 3)
	var wait sync.WaitGroup
	names := make([]string, len(devices))
	for i, device := range devices {
		wait.Go(func() {
			public, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(device)
			if err != nil {
				t.Error(err)
				return
			}
			names[i] = string(public.Name.Buffer)
		})
	}
	wait.Wait()
	if names[0] == names[1] || names[1] == names[2] || names[0] == names[2] {
		t.Error("two devices have the same endorsement key")
	}
}

func TestStateRunsOnce(t *testing.T) {
	device := Start(t)
	if second, err := device.State().Start(Options{}); err == nil {
		_ = second.Stop()
		t.Error("two devices run on one state")
	}
	if left, err := filepath.Glob("/tmp/tpm*/log"); err != nil || len(left) == 0 {
		t.Errorf("logs: %v (%v)", left, err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	fake := &recorder{TB: t}
	device := Device(fake, 0)
	fake.end()
	if _, err := os.Stat(filepath.Dir(device.Socket())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket directory is still there: %v", err)
	}
	if device.Pid() != 0 || device.Reboot() == nil {
		t.Error("a stopped device goes on")
	}
	if err := device.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestDirectoryOfTheCaller(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "own")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	device, err := DeviceState(t, 0).Start(Options{Dir: dir, Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	if device.Device() != "unix:"+dir+"/tpm" || filepath.Dir(device.Log()) != dir {
		t.Errorf("device %s, log %s", device.Device(), device.Log())
	}
	if err := device.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(device.Log()); err != nil {
		t.Errorf("the log is gone: %v", err)
	}
	for _, bad := range []string{strings.Repeat("x", 100), "a,b"} {
		if _, err := DeviceState(t, 0).Start(Options{Dir: filepath.Join(dir, bad)}); err == nil {
			t.Errorf("a socket in directory %s was taken", bad)
		}
	}
}

func TestFreeze(t *testing.T) {
	device := Start(t)
	if err := device.Freeze(); err != nil {
		t.Fatal(err)
	}
	connection, err := net.Dial("unix", device.Socket())
	if err != nil {
		t.Fatalf("a frozen TPM does not take connections: %v", err)
	}
	if err := connection.Close(); err != nil {
		t.Fatal(err)
	}
	if err := device.Thaw(); err != nil {
		t.Fatal(err)
	}
	resetCount(t, device)
}

func TestCounter(t *testing.T) {
	counter := NewCounter(Start(t))
	for range 2 {
		if _, err := (tpm2.ReadClock{}).Execute(counter); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (tpm2.GetRandom{BytesRequested: 8}).Execute(counter); err != nil {
		t.Fatal(err)
	}
	if counts := counter.Counts(); counts["ReadClock"] != 2 || counts["GetRandom"] != 1 || counter.Total() != 3 {
		t.Errorf("counts are %v", counts)
	}
	counter.Reset()
	if counter.Total() != 0 {
		t.Error("Reset does not start anew")
	}
	if err := counter.Close(); err != nil {
		t.Error(err)
	}
}
