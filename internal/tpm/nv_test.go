// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

func TestReadCertificate(t *testing.T) {
	opened, counter := open(t, tpmsim.Start(t))
	for _, e := range endorsements {
		der, err := opened.ReadCertificate(t.Context(), e.index)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x509.ParseCertificate(der); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
	}
	if counter.Counts()["NV_Read"] < 3 {
		t.Errorf("not read in chunks: %v", counter.Counts())
	}
	if _, err := opened.ReadCertificate(t.Context(), 0x1c0000a); !errors.Is(err, tpm.ErrNoCertificate) {
		t.Errorf("an absent certificate: %v", err)
	}
}

func TestReadCertificateOfManyKinds(t *testing.T) {
	der := append([]byte{0x30, 0x82, 0x04, 0x00}, bytes.Repeat([]byte{7}, 0x400)...)
	both := tpm2.TPMANV{OwnerRead: true, AuthRead: true}
	for name, test := range map[string]struct {
		attributes tpm2.TPMANV
		content    []byte
		want       bool
	}{
		"by owner or index":    {both, der, true},
		"by owner only":        {tpm2.TPMANV{OwnerRead: true}, der, true},
		"by index only":        {tpm2.TPMANV{AuthRead: true}, der, true},
		"by the platform only": {tpm2.TPMANV{PPRead: true}, der, false},
		"padded":               {both, append(bytes.Clone(der), bytes.Repeat([]byte{0xff}, 500)...), true},
		"erased":               {both, bytes.Repeat([]byte{0xff}, 1000), false},
		"cut":                  {both, der[:900], false},
		"much padding":         {both, append(bytes.Clone(der), make([]byte, 900)...), true},
	} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			if err := sim.DefineNV(0x1c00002, test.attributes, test.content); err != nil {
				t.Fatal(err)
			}
			opened, _ := open(t, sim)
			got, err := opened.ReadCertificate(t.Context(), 0x1c00002)
			if test.want != (err == nil && bytes.Equal(got, der)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if errors.Is(err, tpm.ErrNoCertificate) {
				t.Error("a certificate that cannot be read is not an absent one")
			}
		})
	}
}
