// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// HTTP is a mount of the auth method at an address. It may be used by many
// goroutines and keeps their connections open.
type HTTP struct {
	// Client makes the calls. [NewHTTP] has it follow no redirect.
	Client    *http.Client
	mount     string // https://host:port/v1/auth/mount
	namespace string
}

// NewHTTP is the mount auth/<path> in a namespace, empty for the root one, at
// https://host:port. The server is believed if a certificate of roots (PEM)
// vouches for it.
func NewHTTP(address, namespace, mount string, roots []byte) (*HTTP, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("no certificate to believe the server by")
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     time.Minute,
	}
	return &HTTP{
		Client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		mount:     strings.TrimRight(address, "/") + "/v1/" + strings.Trim(mount, "/"),
		namespace: namespace,
	}, nil
}

// Challenge implements Server.
func (h *HTTP) Challenge(ctx context.Context, message []byte) (*Answer, error) {
	return h.post(ctx, "challenge", message)
}

// Login implements Server.
func (h *HTTP) Login(ctx context.Context, message []byte) (*Answer, error) {
	return h.post(ctx, "login", message)
}

func (h *HTTP) post(ctx context.Context, path string, message []byte) (*Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.mount+"/"+path, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Vault-Request", "true")
	if h.namespace != "" {
		request.Header.Set("X-Vault-Namespace", h.namespace)
	}
	response, err := h.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	answer := &Answer{Status: response.StatusCode}
	if err := json.Unmarshal(body, answer); err != nil {
		answer.Errors = []string{string(body)} // whoever answered was no OpenBao
	}
	return answer, nil
}
