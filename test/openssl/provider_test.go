// SPDX-License-Identifier: Apache-2.0

//go:build provider

package openssl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/issuer"
)

// The provider is given from outside: make test-openssl-provider
// PROVIDER=/path/tpm2.so.
const providerVariable = "PROVIDER"

// oldest is the first version whose keys Python's ssl can use, major and minor.
var oldest = [2]int{1, 3}

// withProvider is a machine whose programs use the given provider beside OpenSSL's
// own, which goes first: the TPM is for the key alone.
func withProvider(t *testing.T, usage issuer.Usage) *machine {
	t.Helper()
	path := os.Getenv(providerVariable)
	if !filepath.IsAbs(path) {
		t.Fatalf("no provider: make test-openssl-provider %s=/path/tpm2.so, tpm2-openssl %d.%d or newer", providerVariable, oldest[0], oldest[1])
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		t.Fatalf("no provider at %s: %v", path, err)
	}
	m := newMachine(t, usage, persist)
	m.write(t, "openssl.cnf", []byte(`openssl_conf = init
[init]
providers = providers
alg_section = algorithms
[providers]
default = default_provider
tpm2 = tpm2_provider
[default_provider]
activate = 1
[tpm2_provider]
module = `+path+`
activate = 1
[algorithms]
default_properties = ?provider!=tpm2
`))
	m.env = append(m.env, "OPENSSL_CONF="+m.path("openssl.cnf"))
	checkVersion(t, m, path)
	return m
}

var versionLine = regexp.MustCompile(`(?m)^  tpm2\n    name: .*\n    version: ([0-9]+)\.([0-9]+)`)

func checkVersion(t *testing.T, m *machine, path string) {
	t.Helper()
	out, err := m.command(t, "openssl", "list", "-providers").CombinedOutput()
	found := versionLine.FindStringSubmatch(string(out))
	if err != nil || found == nil {
		t.Fatalf("%s is no provider tpm2 that OpenSSL loads: %v\n%s", path, err, out)
	}
	major, _ := strconv.Atoi(found[1])
	minor, _ := strconv.Atoi(found[2])
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		t.Fatalf("%s is tpm2-openssl %d.%d: with it Python's ssl loads a key and cannot sign; %d.%d or newer is needed", path, major, minor, oldest[0], oldest[1])
	}
}

// TestPythonServes: a server that calls load_cert_chain, as Keylime's does.
func TestPythonServes(t *testing.T) {
	m := withProvider(t, issuer.ServerAuth)
	server := m.command(t, "/usr/bin/python3", "testdata/server.py", m.path("chain.pem"), m.path("key.pem"))
	address := startServer(t, server)
	for range 3 {
		checkServes(t, m, address, "served by Python")
	}
}

// TestPythonIsAClient: the key of a client certificate is in the TPM.
func TestPythonIsAClient(t *testing.T) {
	m := withProvider(t, issuer.ClientAuth)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", m.serverConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go tell(conn.(*tls.Conn))
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		out, err := m.command(t, "/usr/bin/python3", "testdata/client.py", m.path("chain.pem"), m.path("key.pem"), m.path("ca.pem"), port).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "hello service.example") {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// tell says the client's name to it, once its key is proven.
func tell(conn *tls.Conn) {
	defer conn.Close()
	if err := conn.Handshake(); err == nil {
		_, _ = conn.Write([]byte("hello " + conn.ConnectionState().PeerCertificates[0].Subject.CommonName))
	}
}

// serverConfig is of a server that demands a client certificate.
func (m *machine) serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: usages(issuer.ServerAuth),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.ca.cert, key.Public(), m.ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: m.ca.pool(), MinVersion: tls.VersionTLS13,
	}
}
