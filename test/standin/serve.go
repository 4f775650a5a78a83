// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

// tlsConfig reads the three files as the user the agent dropped to.
func (c settings) tlsConfig() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.ServerCert, c.ServerKey)
	if err != nil {
		return nil, fmt.Errorf("load certificate and key: %w", err)
	}
	pair.Certificate = pair.Certificate[:1] // the agent serves the leaf alone
	trust, err := loadTrust(c.TrustedClientCA)
	if err != nil {
		return nil, fmt.Errorf("load trusted_client_ca: %w", err)
	}
	return &tls.Config{
		MinVersion:            tls.VersionTLS12,
		Certificates:          []tls.Certificate{pair},
		ClientAuth:            tls.RequireAnyClientCert,
		VerifyPeerCertificate: trust.verify,
	}, nil
}

// trusted is trusted_client_ca as OpenSSL takes it: only a self-signed
// certificate ends a chain, the others help to build it.
type trusted struct{ roots, between *x509.CertPool }

func loadTrust(files string) (trusted, error) {
	t := trusted{x509.NewCertPool(), x509.NewCertPool()}
	for name := range strings.SplitSeq(files, ",") {
		text, err := os.ReadFile(strings.TrimSpace(name))
		if err != nil {
			return t, err
		}
		count := 0
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return t, fmt.Errorf("%s: %w", name, err)
			}
			t.add(certificate)
			count++
		}
		if count == 0 {
			return t, fmt.Errorf("no certificate in %s", name)
		}
	}
	return t, nil
}

func (t trusted) add(certificate *x509.Certificate) {
	if bytes.Equal(certificate.RawIssuer, certificate.RawSubject) {
		t.roots.AddCert(certificate)
		return
	}
	t.between.AddCert(certificate)
}

func (t trusted) verify(raw [][]byte, _ [][]*x509.Certificate) error {
	var chain []*x509.Certificate
	for _, der := range raw {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return errors.New("no client certificate")
	}
	between := t.between.Clone()
	for _, certificate := range chain[1:] {
		between.AddCert(certificate)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: t.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		log.Printf("refused the client certificate of %s: %v", chain[0].Subject.CommonName, err)
	}
	return err
}

// answers are the two resources that ask nothing of a TPM.
func answers(c settings, versions []string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		claim := map[string]any{"supported_version": versions[len(versions)-1], "stand_in": true}
		if len(versions) > 1 { // the list is new in 0.2.9
			claim["supported_versions"] = versions
		}
		reply(w, claim)
	})
	for _, version := range versions {
		mux.HandleFunc("GET /v"+version+"/agent/info", func(w http.ResponseWriter, _ *http.Request) {
			reply(w, map[string]any{
				"agent_uuid": c.UUID, "tpm_hash_alg": c.TPMHashAlg, "tpm_enc_alg": c.TPMEncAlg,
				"tpm_sign_alg": c.TPMSignAlg, "stand_in": true,
			})
		})
	}
	return mux
}

func reply(w http.ResponseWriter, results any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"code": 200, "status": "Success", "results": results})
}
