// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest/verify/provertest"
)

// FuzzQuote holds the hand-written parser against go-tpm's: what ours accepts,
// go-tpm reads alike and writes back byte for byte.
func FuzzQuote(f *testing.F) {
	for _, v := range provertest.Vectors(f, "../testdata/vectors") {
		f.Add(v.Login.Quote)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, signer, ok := parseQuote(raw)
		if !ok {
			return
		}
		other, err := tpm2.Unmarshal[tpm2.TPMSAttest](raw)
		if err != nil {
			t.Fatalf("go-tpm refuses %x: %v", raw, err)
		}
		info, err := other.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		same := bytes.Equal(other.QualifiedSigner.Buffer, signer) &&
			bytes.Equal(other.ExtraData.Buffer, q.ExtraData) &&
			other.ClockInfo.Clock == q.Clock && other.ClockInfo.ResetCount == q.ResetCount &&
			other.ClockInfo.RestartCount == q.RestartCount && other.ClockInfo.Safe == q.Safe &&
			other.FirmwareVersion == q.Firmware && bytes.Equal(info.PCRDigest.Buffer, q.PCRDigest[:]) &&
			len(info.PCRSelect.PCRSelections) == len(q.selections)
		if !same || !bytes.Equal(tpm2.Marshal(other), raw) {
			t.Fatalf("%x: %+v, go-tpm says %+v", raw, q, other)
		}
	})
}
