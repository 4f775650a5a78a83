// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Usage says what a certificate is for. A certificate has exactly one usage:
// Keylime makes the holder of every clientAuth certificate an administrator,
// so a server's certificate must not carry it.
type Usage uint8

// The usages, RFC 5280 section 4.2.1.12. The zero Usage is not valid.
const (
	ServerAuth Usage = iota + 1 // id-kp-serverAuth
	ClientAuth                  // id-kp-clientAuth
)

// String returns "server" or "client", the word in the name of the PKI role
// <host>.<usage>.
func (u Usage) String() string {
	switch u {
	case ServerAuth:
		return "server"
	case ClientAuth:
		return "client"
	}
	return "invalid"
}

// extKeyUsage is the one extended key usage that the certificate must carry.
func (u Usage) extKeyUsage() x509.ExtKeyUsage {
	if u == ClientAuth {
		return x509.ExtKeyUsageClientAuth
	}
	return x509.ExtKeyUsageServerAuth
}

// Bounds of a [Request].
const (
	MinTTL   = 2 * time.Minute      // shorter ones are over before they are installed
	MaxTTL   = 366 * 24 * time.Hour // longer ones are not what a renewing agent is for
	maxCN    = 64                   // ub-common-name, RFC 5280 appendix A.1
	maxNames = 32                   // DNS names, and IP addresses
	maxName  = 63                   // Request.Name
	maxURI   = 2048                 // SPIFFE-ID section 2.3
)

// Request is one certificate as the configuration asks for it.
type Request struct {
	Name       string        // the operator's word for it, for messages and files: [a-z0-9-], at most 63
	CommonName string        // a host name of at most 64 bytes; it is also a DNS name of the certificate
	DNS        []string      // further DNS names: lower case, no wildcard, no final dot
	IP         []netip.Addr  // IP addresses, without zone, IPv4 as IPv4
	URI        string        // a SPIFFE ID with a path, or empty
	Usage      Usage         // ServerAuth or ClientAuth
	TTL        time.Duration // the lifetime asked for, MinTTL to MaxTTL
}

// Check reports the first thing in r that is missing or out of bounds. It says
// nothing about who may have these names: OpenBao's PKI role does.
func (r Request) Check() error {
	checks := []func() error{r.checkName, r.checkDNS, r.checkIP, r.checkURI, r.checkUsage}
	for _, check := range checks {
		if err := check(); err != nil {
			return fmt.Errorf("certificate %q: %w", clean(r.Name), err)
		}
	}
	return nil
}

func (r Request) checkName() error {
	if r.Name == "" || len(r.Name) > maxName || !onlyOf(r.Name, lower+digits+"-") {
		return errors.New("name: want 1 to 63 of a-z, 0-9 and -")
	}
	if len(r.CommonName) > maxCN {
		return fmt.Errorf("common name: %d bytes, at most %d", len(r.CommonName), maxCN)
	}
	if err := checkHostName(r.CommonName); err != nil {
		return fmt.Errorf("common name: %w", err)
	}
	return nil
}

func (r Request) checkDNS() error {
	if len(r.DNS) > maxNames {
		return fmt.Errorf("dns: %d names, at most %d", len(r.DNS), maxNames)
	}
	for i, name := range r.DNS {
		if err := checkHostName(name); err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		if slices.Contains(r.DNS[:i], name) {
			return fmt.Errorf("dns: %q listed twice", name)
		}
	}
	return nil
}

func (r Request) checkIP() error {
	if len(r.IP) > maxNames {
		return fmt.Errorf("ip: %d addresses, at most %d", len(r.IP), maxNames)
	}
	for i, addr := range r.IP {
		switch {
		case !addr.IsValid():
			return errors.New("ip: not an address")
		case addr.Zone() != "":
			return fmt.Errorf("ip: %s has a zone, which a certificate cannot hold", addr)
		case addr.Is4In6():
			return fmt.Errorf("ip: %s: write it as %s", addr, addr.Unmap())
		case addr.IsUnspecified() || addr.IsMulticast():
			return fmt.Errorf("ip: %s is not the address of a host", addr)
		case slices.Contains(r.IP[:i], addr):
			return fmt.Errorf("ip: %s listed twice", addr)
		}
	}
	return nil
}

func (r Request) checkURI() error {
	if r.URI == "" {
		return nil
	}
	if len(r.URI) > maxURI {
		return fmt.Errorf("uri: %d bytes, at most %d", len(r.URI), maxURI)
	}
	id, err := spiffeid.FromString(r.URI)
	if err != nil {
		return fmt.Errorf("uri: %q is not a SPIFFE ID: %w", clean(r.URI), err)
	}
	if id.Path() == "" {
		return fmt.Errorf("uri: %q has no path: it names a trust domain, not a workload", id)
	}
	return nil
}

func (r Request) checkUsage() error {
	if r.Usage != ServerAuth && r.Usage != ClientAuth {
		return errors.New("usage: want server or client")
	}
	if r.TTL < MinTTL || r.TTL > MaxTTL {
		return fmt.Errorf("ttl: %s is not between %s and %s", r.TTL, MinTTL, MaxTTL)
	}
	return nil
}

// dnsNames is the exact set of DNS names that the certificate must carry: the
// common name and r.DNS. OpenBao adds the common name by itself; putting it
// into the request makes the result independent of that.
func (r Request) dnsNames() []string {
	names := []string{r.CommonName}
	for _, name := range r.DNS {
		if name != r.CommonName {
			names = append(names, name)
		}
	}
	return names
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// checkHostName accepts a host name of RFC 1123 section 2.1 in lower case:
// letters, digits and inner hyphens, labels of at most 63 bytes, 253 in all.
// A last label of digits only would be read as an IPv4 address by some.
func checkHostName(name string) error {
	if name == "" || len(name) > 253 {
		return fmt.Errorf("%q: want a host name of 1 to 253 bytes", clean(name))
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || !onlyOf(label, lower+digits+"-") ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q: want a host name of labels a-z, 0-9 and inner -, in lower case, no wildcard", clean(name))
		}
	}
	if onlyOf(labels[len(labels)-1], digits) {
		return fmt.Errorf("%q: looks like an IP address: list it under ip", clean(name))
	}
	return nil
}

// onlyOf reports whether every character of s is in set.
func onlyOf(s, set string) bool { return strings.Trim(s, set) == "" }

// clean makes text from outside fit for a message: printable, at most 200 bytes.
func clean(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}
