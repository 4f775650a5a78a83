// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/testca"
)

// pair issues a certificate for a name and 127.0.0.1.
func pair(t *testing.T, ca *testca.CA, name string, usages ...x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	chain, key := ca.Issue(t, testca.Want{Name: name, IPs: []string{"127.0.0.1"}, Usages: usages})
	loaded, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// serve starts a server with these settings and returns its address.
func serve(t *testing.T, config *tls.Config, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = config
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func pool(t *testing.T, texts ...[]byte) *x509.CertPool {
	t.Helper()
	found := x509.NewCertPool()
	for _, text := range texts {
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			found.AddCert(cert)
		}
	}
	return found
}

func answer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/version":
		io.WriteString(w, `{"results":{"current_version":"2.6","supported_versions":["2.6"]}}`)
	case "/v2.6/agents/":
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.WriteString(w, `{"results":{"uuids":[]}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestServed(t *testing.T) {
	book, other := testca.New(t, "book"), testca.New(t, "other")
	good := pair(t, book, "verifier.test", testca.Server()...)
	leafOnly := tls.Certificate{Certificate: good.Certificate[:1], PrivateKey: good.PrivateKey, Leaf: good.Leaf}
	for name, c := range map[string]struct {
		served  tls.Certificate
		version uint16
		demand  bool
		bundle  []byte
		want    string // "" for no error
	}{
		"right":                         {served: good, bundle: book.Bundle()},
		"leaf alone":                    {served: leafOnly, bundle: book.Bundle()},
		"client certificate demanded":   {served: good, bundle: book.Bundle(), demand: true},
		"demanded in TLS 1.2":           {served: good, bundle: book.Bundle(), demand: true, version: tls.VersionTLS12},
		"another leaf of the same name": {served: pair(t, book, "verifier.test", testca.Server()...), bundle: book.Bundle(), want: "is served"},
		"another leaf, demanded":        {served: pair(t, book, "verifier.test", testca.Server()...), bundle: book.Bundle(), demand: true, want: "is served"},
		"another name":                  {served: pair(t, book, "other.test", testca.Server()...), bundle: book.Bundle(), want: "is served"},
		"a client certificate":          {served: pair(t, book, "verifier.test", testca.Client()...), bundle: book.Bundle(), want: "is served"},
		"wrong chain":                   {served: good, bundle: other.Bundle(), want: "unknown authority"},
		"bundle without its root":       {served: good, bundle: book.IntermediatePEM, want: "does not reach a root"},
		"root of another":               {served: good, bundle: append(append([]byte{}, book.IntermediatePEM...), other.RootPEM...), want: "unknown authority"},
		"empty bundle":                  {served: good, bundle: nil, want: "does not reach a root"},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{c.served}, MaxVersion: c.version}
			if c.demand {
				config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool(t, book.Bundle())
			}
			target := Target{Address: serve(t, config, answer), Leaf: good.Leaf, Bundle: c.bundle}
			check(t, Served(t.Context(), target), c.want)
		})
	}
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want ... %s ...", err, want)
	}
}

// TestCertificateWithoutItsKey is a server that shows the right certificate and
// cannot use its key: a serial number alone would look right.
func TestCertificateWithoutItsKey(t *testing.T) {
	book := testca.New(t, "book")
	shown, other := pair(t, book, "verifier.test", testca.Server()...), pair(t, book, "x.test", testca.Server()...)
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: shown.Certificate, PrivateKey: other.PrivateKey}, nil
	}}
	target := Target{Address: serve(t, config, answer), Leaf: shown.Leaf, Bundle: book.Bundle()}
	if err := Served(t.Context(), target); err == nil {
		t.Error("accepted")
	}
}

func TestRefuses(t *testing.T) {
	book, other := testca.New(t, "book"), testca.New(t, "other")
	own := pair(t, book, "agent.test", testca.Server()...)
	rootOnly := pool(t, book.RootPEM)
	for name, c := range map[string]struct {
		auth    tls.ClientAuthType
		clients *x509.CertPool
		version uint16
		want    error
	}{
		"demanded":                     {tls.RequireAndVerifyClientCert, pool(t, book.Bundle()), 0, nil},
		"demanded in TLS 1.2":          {tls.RequireAndVerifyClientCert, pool(t, book.Bundle()), tls.VersionTLS12, nil},
		"looked at if given":           {tls.VerifyClientCertIfGiven, pool(t, book.Bundle()), 0, nil},
		"trusts no CA":                 {tls.RequireAndVerifyClientCert, x509.NewCertPool(), 0, ErrUnknownCA},
		"trusts another CA":            {tls.RequireAndVerifyClientCert, pool(t, other.Bundle()), 0, ErrUnknownCA},
		"trusts another CA in TLS 1.2": {tls.RequireAndVerifyClientCert, pool(t, other.Bundle()), tls.VersionTLS12, ErrUnknownCA},
		"has no intermediate":          {tls.RequireAndVerifyClientCert, rootOnly, 0, ErrUnknownCA},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: c.auth, ClientCAs: c.clients, MaxVersion: c.version}
			target := Target{Address: serve(t, config, answer), Leaf: own.Leaf, Bundle: book.Bundle()}
			if err := Refuses(t.Context(), target, own); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestServerThatTakesAnything asks servers that look at no certificate. Where they
// say nothing, the probe has to wait for its deadline.
func TestServerThatTakesAnything(t *testing.T) {
	book := testca.New(t, "book")
	own := pair(t, book, "agent.test", testca.Server()...)
	for name, c := range map[string]struct {
		auth    tls.ClientAuthType
		version uint16
	}{
		"asks, TLS 1.2": {tls.RequestClientCert, tls.VersionTLS12},
		"asks, TLS 1.3": {tls.RequestClientCert, tls.VersionTLS13},
		"does not ask":  {tls.NoClientCert, tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: c.auth, MaxVersion: c.version}
			target := Target{Address: serve(t, config, answer), Leaf: own.Leaf, Bundle: book.Bundle()}
			t.Run("server certificate", func(t *testing.T) {
				t.Parallel()
				if err := Refuses(t.Context(), target, own); !errors.Is(err, ErrNotRefused) {
					t.Errorf("got %v", err)
				}
			})
			t.Run("no certificate", func(t *testing.T) {
				t.Parallel()
				if err := Demands(t.Context(), target); !errors.Is(err, ErrOpen) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestDemands(t *testing.T) {
	book := testca.New(t, "book")
	own := pair(t, book, "agent.test", testca.Server()...)
	other := pair(t, book, "agent.test", testca.Server()...)
	for name, c := range map[string]struct {
		auth    tls.ClientAuthType
		version uint16
		served  tls.Certificate
		want    string // "" for a refusal, which is right
	}{
		"demanded":                        {tls.RequireAndVerifyClientCert, tls.VersionTLS13, own, ""},
		"demanded in TLS 1.2":             {tls.RequireAndVerifyClientCert, tls.VersionTLS12, own, ""},
		"any demanded":                    {tls.RequireAnyClientCert, tls.VersionTLS13, own, ""},
		"demanded by something else":      {tls.RequireAndVerifyClientCert, tls.VersionTLS13, other, "is served"},
		"another leaf, which asks nobody": {tls.NoClientCert, tls.VersionTLS13, other, "is served"},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{c.served}, ClientAuth: c.auth, ClientCAs: pool(t, book.Bundle()), MaxVersion: c.version}
			check(t, Demands(t.Context(), Target{Address: serve(t, config, answer), Leaf: own.Leaf, Bundle: book.Bundle()}), c.want)
		})
	}
}

func TestClosed(t *testing.T) {
	book := testca.New(t, "book")
	own := pair(t, book, "verifier.test", testca.Server()...)
	open := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2.6/agents/" {
			io.WriteString(w, `{"results":{"uuids":[]}}`)
			return
		}
		answer(w, r)
	}
	for name, c := range map[string]struct {
		auth    tls.ClientAuthType
		handler http.HandlerFunc
		want    string
	}{
		"refused on the route":     {tls.VerifyClientCertIfGiven, answer, ""},
		"refused in the handshake": {tls.RequireAndVerifyClientCert, open, ""},
		"open":                     {tls.VerifyClientCertIfGiven, open, ErrOpen.Error()},
		"no such route":            {tls.VerifyClientCertIfGiven, http.NotFound, "status 404"},
		"broken": {tls.VerifyClientCertIfGiven, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/version" {
				answer(w, r)
				return
			}
			w.WriteHeader(http.StatusInternalServerError)
		}, "status 500"},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: c.auth, ClientCAs: pool(t, book.Bundle())}
			check(t, Closed(t.Context(), Target{Address: serve(t, config, c.handler), Leaf: own.Leaf, Bundle: book.Bundle()}), c.want)
		})
	}
}

func TestRequests(t *testing.T) {
	book, other := testca.New(t, "book"), testca.New(t, "other")
	server, client := pair(t, book, "verifier.test", testca.Server()...), pair(t, book, "tenant.test", testca.Client()...)
	stranger := pair(t, other, "tenant.test", testca.Client()...)
	config := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool(t, book.Bundle())}
	for name, c := range map[string]struct {
		own     *tls.Certificate
		handler http.HandlerFunc
		want    string
	}{
		"administrator":        {&client, answer, ""},
		"nobody":               {nil, answer, ""},
		"stranger":             {&stranger, answer, "unknown certificate authority"},
		"server as client":     {&server, answer, "bad certificate"},
		"not an administrator": {&client, forbidden, "refuses the client certificate of this host"},
		"not found":            {&client, http.NotFound, "status 404"},
		"redirect":             {&client, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v2.6/agents/", http.StatusFound) }, "status 302"},
		"garbage":              {&client, say("hello"), "not a Keylime answer"},
		"too much":             {&client, say(strings.Repeat(" ", maxAnswer+1)), "larger than 1 MiB"},
		"path as version":      {&client, say(`{"results":{"current_version":"2.6/../../x"}}`), "no usable current_version"},
		"no version":           {&client, say(`{"results":{}}`), "no usable current_version"},
	} {
		t.Run(name, func(t *testing.T) {
			target := Target{Address: serve(t, config.Clone(), c.handler), Leaf: server.Leaf, Bundle: book.Bundle()}
			check(t, Server(t.Context(), target, c.own), c.want)
		})
	}
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func forbidden(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/version" {
		answer(w, r)
		return
	}
	w.WriteHeader(http.StatusForbidden)
}

func TestAddresses(t *testing.T) {
	for want, ip := range map[string]string{"127.0.0.1:1": "0.0.0.0", "[::1]:1": "::", "[2001:db8::1]:1": "2001:db8::1", "10.10.2.62:1": "10.10.2.62"} {
		if got := Address(ip, 1); got != want || Port(got) != 1 {
			t.Errorf("%s: %s", ip, got)
		}
	}
	for _, bad := range []string{"", "host", "host:http", "host:70000", ":"} {
		if Port(bad) != 0 {
			t.Errorf("%q has port %d", bad, Port(bad))
		}
	}
}

func TestReady(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := Ready(t.Context(), address, nil); err != nil {
		t.Error(err)
	}
	listener.Close()
	gone := errors.New("gone")
	if err := Ready(t.Context(), address, func(context.Context) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Ready(ctx, address, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestPlainVersion(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(answer))
	defer server.Close()
	versions, err := PlainVersion(t.Context(), server.Listener.Addr().String())
	if err != nil || versions.Current != "2.6" || !versions.Known() {
		t.Errorf("got %+v, %v", versions, err)
	}
}
