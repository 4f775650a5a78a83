// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// CertsDir is where Keylime's certificates are, on every host.
const CertsDir = "/etc/keylime/certs"

// Pair reads a certificate and its key from the host's certificate folder.
func (h *Host) Pair(name string) (tls.Certificate, error) {
	certificate, err := h.ReadFile(CertsDir + "/" + name + ".crt")
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := h.ReadFile(CertsDir + "/" + name + ".key")
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}

// Installed is the leaf in the host's certificate folder.
func (h *Host) Installed(name string) (*x509.Certificate, error) {
	pair, err := h.Pair(name)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// Served is the leaf that a service serves now, its chain checked up to the
// root of the Book of Omens for servers. The service may go on to demand a
// certificate: that is not this function's question.
func (w *World) Served(ctx context.Context, address string) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The chain is checked below: agents serve the leaf alone, so the
		// intermediate is ours to add.
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf = state.PeerCertificates[0]
			return w.verifyChain(leaf, state.PeerCertificates[1:])
		},
	}
	dialer := &tls.Dialer{Config: config}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("look at what %s serves: %w", address, err)
	}
	return leaf, connection.Close()
}

func (w *World) verifyChain(leaf *x509.Certificate, others []*x509.Certificate) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(w.root)
	between.AppendCertsFromPEM(w.intermediate)
	for _, c := range others {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// AsClient makes one HTTPS request with a client certificate and gives the
// answer's status and body.
func (w *World) AsClient(ctx context.Context, client tls.Certificate, url string) (status int, body []byte, err error) {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: w.clientConfig(client)}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, body, err
}

// Refuses is nil when the server at address ends the handshake with an alert
// because of this client certificate, and says which alert that was.
func (w *World) Refuses(ctx context.Context, client tls.Certificate, address string) (alert string, err error) {
	dialer := &tls.Dialer{Config: w.clientConfig(client)}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		// In TLS 1.3 the server judges the certificate after the client is done.
		defer func() { _ = raw.Close() }()
		_ = raw.SetReadDeadline(time.Now().Add(3 * time.Second))
		_, err = raw.Read(make([]byte, 1))
	}
	var remote *net.OpError
	if errors.As(err, &remote) && remote.Op == "remote error" {
		return remote.Err.Error(), nil
	}
	return "", fmt.Errorf("%s did not refuse the client certificate of %s: %w", address, client.Leaf.Subject.CommonName, err)
}

func (w *World) clientConfig(client tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Sent always, even where the server's list of CAs would not have it.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
		InsecureSkipVerify:   true, //nolint:gosec // see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			return w.verifyChain(state.PeerCertificates[0], state.PeerCertificates[1:])
		},
	}
}
