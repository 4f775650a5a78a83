// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Caller is one client of one server, with a connection of its own.
type Caller struct {
	http    *http.Client
	address string
	traffic Traffic
}

// Traffic is the bytes of bodies that a caller has sent and received.
type Traffic struct{ Sent, Received int }

// Traffic is what went over the connection so far. It is for the goroutine that
// calls Write.
func (c *Caller) Traffic() Traffic { return c.traffic }

// NewCaller makes a client of the server at https://host:port. The identity is
// its TLS certificate, which only some auth methods ask for; nil is none.
func NewCaller(address string, roots *x509.CertPool, identity *tls.Certificate) *Caller {
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	if identity != nil {
		config.Certificates = []tls.Certificate{*identity}
	}
	return &Caller{address: address, http: &http.Client{
		Timeout: 60 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     config,
			TLSHandshakeTimeout: 30 * time.Second,
			MaxConnsPerHost:     1,
			IdleConnTimeout:     5 * time.Minute,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close ends the connection.
func (c *Caller) Close() { c.http.CloseIdleConnections() }

// A StatusError is an answer that is none.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.Status, e.Body) }

// Write sends body to path (auth/tpm/login) and reads the answer into answer,
// which may be nil. Anything but 200 is a [*StatusError].
func (c *Caller) Write(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	c.traffic.Sent += int(request.ContentLength)
	c.traffic.Received += len(text)
	if response.StatusCode != http.StatusOK {
		return &StatusError{Status: response.StatusCode, Body: string(text)}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
