// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
)

// Two machines of one kind that differ in dbx and boot loader, and two others.
const (
	noDBX  = "ubuntu-2104-no-dbx"
	noSB   = "ubuntu-2104-no-secure-boot"
	rhel8  = "rhel8-uefi" // Secure Boot on
	cos101 = "cos-101-amd-sev"
)

var (
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	usual  = attest.Selection{Bank: "sha256", PCRs: []int{0, 1, 2, 3, 4, 7}}
	seven  = attest.Selection{Bank: "sha256", PCRs: []int{7}}
	beyond = attest.Selection{Bank: "sha384", PCRs: []int{0, 2, 4, 5, 7, 8, 9}}
)

func readLog(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "eventlog", "testdata", "logs", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// quote gives the values and the digest that a TPM has after this log.
func quote(t testing.TB, raw []byte, s attest.Selection) (values [][]byte, digest [32]byte) {
	t.Helper()
	l, err := eventlog.Parse(raw, s.Bank)
	if err != nil {
		t.Fatal(err)
	}
	for _, pcr := range s.PCRs {
		v, _ := l.Replay(pcr)
		values = append(values, v)
	}
	return values, sha256.Sum256(bytes.Join(values, nil))
}

// boot is the State of a machine with this log.
func boot(t testing.TB, name string, s attest.Selection) *State {
	t.Helper()
	raw := readLog(t, name)
	values, digest := quote(t, raw, s)
	state, err := Observe(s, values, digest, raw)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// silent is the State of the same machine if its firmware gave no log.
func silent(t testing.TB, name string, s attest.Selection) *State {
	t.Helper()
	values, digest := quote(t, readLog(t, name), s)
	state, err := Observe(s, values, digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	return state
}
