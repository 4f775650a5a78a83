// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/openbao/openbao/api/v2"
)

const (
	maxReply  = 1 << 20 // body of an answer; a signed chain is about 5 KiB
	maxHeader = 64 << 10
	maxCAFile = 1 << 20
)

// readCAs reads the certificates of the file at path: at least one, and nothing
// that is not a certificate.
func readCAs(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, errors.New("not set: the CA of OpenBao must be named")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxCAFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxCAFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxCAFile)
	}
	pool, count := x509.NewCertPool(), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, fmt.Errorf("%s: PEM block %d is not a certificate", path, count+1)
		}
		pool.AddCert(cert)
		count++
	}
	if count == 0 {
		return nil, fmt.Errorf("%s: no PEM certificate in it", path)
	}
	return pool, nil
}

// newTransport connects by TLS 1.3 alone, to servers that roots vouch for. With
// 1.3 no setting of the process can bring weak cipher suites back.
func newTransport(roots *x509.CertPool, serverName string) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                  nil, // named, because the default would ask the environment
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS13},
		TLSHandshakeTimeout:    20 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		// A server that lost its power closes no connection. One that has ten thousand
		// hosts at once answers a ping after seconds.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 3 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// redirectError is an answer that points elsewhere. A challenge is bound to the
// address that was dialled, and a token belongs to no other, so it is an error.
type redirectError struct{ status int }

func (e *redirectError) Error() string { return fmt.Sprintf("redirect (HTTP %d)", e.status) }

// boundedTransport bounds each answer and turns redirects into errors before
// anything can follow them.
type boundedTransport struct{ inner http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.inner.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		_ = response.Body.Close()
		return nil, &redirectError{status: response.StatusCode}
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxReply)
	return response, nil
}

// newAPIClient makes the library's client without its environment, its retries
// and its redirects.
func newAPIClient(address, namespace string, transport http.RoundTripper) (*api.Client, error) {
	config := api.NewConfig()
	if config.Error != nil {
		return nil, fmt.Errorf("configure OpenBao client: %w", config.Error)
	}
	config.Address = address
	config.DisableEnvironment = true
	config.DisableRedirects = true
	config.DefaultStrongConsistency = true
	config.MaxRetries = 0
	config.Timeout = 0 // each attempt has its own deadline
	config.CheckRetry = func(_ context.Context, _ *http.Response, err error) (bool, error) { return false, err }
	config.HttpClient = &http.Client{
		Transport:     boundedTransport{inner: transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("make OpenBao client: %w", err)
	}
	if namespace != "" {
		client.SetNamespace(namespace)
	}
	return client, nil
}
