// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// What people had installed may be valid for ten years. Where a first renewal
// went back to it, the next one must not wait for those.
func TestCertificateOfPeopleDoesNotPutRenewalOff(t *testing.T) {
	c := &config.Certificate{Name: "verifier", TTL: config.Duration{Duration: 24 * time.Hour}}
	begin := time.Now().Add(-time.Hour)
	found := install.Certificate{Name: "verifier", Serial: "01", NotBefore: begin, NotAfter: begin.AddDate(10, 0, 0)}
	got := describeCertificate(c, &install.Installed{Certificates: []install.Certificate{found}})
	if want := begin.Add(16 * time.Hour); got.RenewAt.After(want) || !got.NotAfter.Equal(found.NotAfter) {
		t.Errorf("renewal at %v, want %v at the latest", got.RenewAt, want)
	}
}
