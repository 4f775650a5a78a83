// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
)

// eventLogs is where go-attestation keeps logs of real machines.
func eventLogs(t *testing.T) string {
	t.Helper()
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/go-attestation").Output()
	if err != nil {
		t.Fatalf("find go-attestation: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(output)), "attest", "testdata")
}

func TestReplayRealEventLogs(t *testing.T) {
	device := Start(t)
	for _, name := range []string{
		"coreos_36_shielded_vm_no_secure_boot_eventlog",
		"crypto_agile_eventlog",
		"option_rom_eventlog", // SHA-1 only
		"sb_cert_eventlog",
		"ubuntu_2104_shielded_vm_no_secure_boot_eventlog",
	} {
		t.Run(name, func(t *testing.T) {
			log, err := os.ReadFile(filepath.Join(eventLogs(t), name))
			if err != nil {
				t.Fatal(err)
			}
			replayAndVerify(t, device, log)
		})
	}
}

func replayAndVerify(t *testing.T, device *TPM, log []byte) {
	t.Helper()
	if err := device.Replay(log); err != nil {
		t.Fatal(err)
	}
	parsed, err := attest.ParseEventLog(log)
	if err != nil {
		t.Fatal(err)
	}
	pcrs := readAll(t, device, parsed.Algs)
	events, err := parsed.Verify(pcrs)
	if err != nil {
		t.Error(err)
	}
	if len(events) == 0 {
		t.Error("no event was matched to a PCR")
	}
}

// readAll reads the PCRs of the strongest bank that the log and the device
// share.
func readAll(t *testing.T, device *TPM, algs []attest.HashAlg) []attest.PCR {
	t.Helper()
	bank := banks[0]
	for _, alg := range algs {
		if alg == banks[1].tpm {
			bank = banks[1]
		}
	}
	hash, err := bank.alg.Hash()
	if err != nil {
		t.Fatal(err)
	}
	var pcrs []attest.PCR
	for i := range 24 {
		value, err := device.PCR(i, bank.alg)
		if err != nil {
			t.Fatal(err)
		}
		pcrs = append(pcrs, attest.PCR{Index: i, Digest: value, DigestAlg: hash})
	}
	return pcrs
}

// TestReplayStartupLocality builds a crypto-agile log of one machine with an
// H-CRTM: its PCR 0 starts as 0…03.
func TestReplayStartupLocality(t *testing.T) {
	device := Start(t)
	digest := bytes.Repeat([]byte{9}, 32)
	log := specIDEvent()
	log = append(log, event(0, evNoAction, make([]byte, 32), []byte("StartupLocality\x00\x03"))...)
	log = append(log, event(0, 8, digest, []byte("firmware"))...)
	replayAndVerify(t, device, log)

	start := make([]byte, 32)
	start[31] = 3
	hash, err := tpm2.TPMAlgSHA256.Hash()
	if err != nil {
		t.Fatal(err)
	}
	h := hash.New()
	h.Write(append(start, digest...))
	if got, err := device.PCR(0, tpm2.TPMAlgSHA256); err != nil || !bytes.Equal(got, h.Sum(nil)) {
		t.Errorf("PCR 0 is %x (%v)", got, err)
	}
}

// specIDEvent is the header of a crypto-agile log with the SHA-256 bank alone.
func specIDEvent() []byte {
	data := []byte("Spec ID Event03\x00")
	data = append(data, 0, 0, 0, 0, 0, 2, 0, 2) // class, version 2.0, errata, uintn
	data = append(data, 1, 0, 0, 0)             // one algorithm
	data = append(data, 0x0b, 0, 32, 0, 0)      // SHA-256, 32 bytes; no vendor information
	header := append([]byte{0, 0, 0, 0, 3, 0, 0, 0}, make([]byte, 20)...)
	header = append(header, byte(len(data)), 0, 0, 0)
	return append(header, data...)
}

func event(pcr byte, kind attest.EventType, digest, data []byte) []byte {
	e := []byte{pcr, 0, 0, 0, byte(kind), 0, 0, 0, 1, 0, 0, 0, 0x0b, 0}
	e = append(e, digest...)
	e = append(e, byte(len(data)), 0, 0, 0)
	return append(e, data...)
}

func TestReplayRefusesGarbage(t *testing.T) {
	if err := Start(t).Replay([]byte("no log")); err == nil {
		t.Error("replayed what is no event log")
	}
}
