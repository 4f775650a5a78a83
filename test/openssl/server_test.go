// SPDX-License-Identifier: Apache-2.0

package openssl

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// TestDebiansProvider: openssl s_server of Debian 12, unchanged, serves with a key
// in the TPM. The client verifies the chain, the name and the possession of the
// key, three times.
func TestDebiansProvider(t *testing.T) {
	for parent, prepare := range map[string]func(*testing.T, *tpmsim.TPM){
		"0x81000001": persist,
		"0x40000001": func(*testing.T, *tpmsim.TPM) {},
	} {
		t.Run(parent, func(t *testing.T) {
			m := newMachine(t, issuer.ServerAuth, prepare)
			server := m.command(t, "openssl", "s_server", "-provider", "tpm2", "-provider", "default",
				"-accept", "127.0.0.1:0", "-key", m.path("key.pem"), "-cert", m.path("chain.pem"), "-www")
			address := portOf(t, startServer(t, server))
			for range 3 {
				checkServes(t, m, address, "s_server")
			}
		})
	}
}

// checkServes makes a whole request over TLS 1.3.
func checkServes(t *testing.T, m *machine, address, word string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: m.ca.pool(), ServerName: "service.example", MinVersion: tls.VersionTLS13},
		DisableKeepAlives: true,
	}}
	response, err := client.Get("https://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || !strings.Contains(string(text), word) {
		t.Errorf("answer %q: %v", text, err)
	}
	if name := response.TLS.PeerCertificates[0].Subject.CommonName; name != "service.example" {
		t.Errorf("served by %s", name)
	}
}
