// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 1 << 20

// StatusError is an answer with another status than 200.
type StatusError struct {
	Method string
	URL    string
	Status int
}

// Error names the request and the status.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: status %d", e.Method, e.URL, e.Status)
}

// Client speaks to one service as one client certificate, or as nobody.
type Client struct {
	target Target
	http   *http.Client
}

// NewClient returns a client for t; own may be nil. With a Leaf in t the service
// must serve it; without one it must be valid for the host name in the address.
func NewClient(t Target, own *tls.Certificate) (*Client, error) {
	config, err := t.clientConfig()
	if err != nil {
		return nil, err
	}
	config.GetClientCertificate = always(own)
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, Proxy: nil}
	return &Client{target: t, http: &http.Client{
		Transport:     transport,
		Timeout:       2 * dialTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (t Target) clientConfig() (*tls.Config, error) {
	if t.Leaf != nil {
		return t.config()
	}
	anchors, _, _, err := split(t.Bundle)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: anchors}, nil
}

// Versions is what Keylime's /version answers.
type Versions struct {
	Current   string   `json:"current_version"`    // verifier and registrar
	One       string   `json:"supported_version"`  // agents before 0.2.9, and later
	Supported []string `json:"supported_versions"` // verifier, registrar, agents from 0.2.9 on
}

// Version asks for /version.
func (c *Client) Version(ctx context.Context) (Versions, error) {
	var versions Versions
	err := c.Results(ctx, "/version", &versions)
	return versions, err
}

// Results asks for path and decodes the "results" of the answer into into,
// which may be nil. Any status but 200 is a StatusError.
func (c *Client) Results(ctx context.Context, path string, into any) error {
	err := ask(ctx, c.http, http.MethodGet, "https://"+c.target.Address+path, into)
	return c.target.explain(err)
}

// PlainVersion asks an agent without TLS, the state before mTLS is switched on.
func PlainVersion(ctx context.Context, address string) (Versions, error) {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
		Timeout:       5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var versions Versions
	err := ask(ctx, client, http.MethodGet, "http://"+address+"/version", &versions)
	return versions, err
}

func ask(ctx context.Context, client *http.Client, method, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return &StatusError{Method: method, URL: url, Status: response.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("%s %s: %w", method, url, errors.New("answer larger than 1 MiB"))
	}
	return decode(method+" "+url, body, into)
}

func decode(question string, body []byte, into any) error {
	if into == nil {
		return nil
	}
	answer := struct {
		Results any `json:"results"`
	}{into}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: not a Keylime answer: %w", question, err)
	}
	return nil
}

// Known reports that the answer said something about versions.
func (v Versions) Known() bool { return v.One != "" || len(v.Supported) > 0 }
