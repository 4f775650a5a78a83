// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"funlab.casa/omen/attest"
)

// fault is one thing that is not right, before its line is known.
type fault struct {
	at   place
	err  error
	hint string
}

func wrong(table string, index int, key, hint, format string, args ...any) *fault {
	return &fault{place{table, index, key}, fmt.Errorf(format, args...), hint}
}

// check gives the first fault, or nil.
func (c *Config) check() *fault {
	for _, f := range []*fault{c.checkOpenBao(), c.checkTPM(), c.checkSeal(), c.checkPKI(), c.checkKeylime(), c.Boot.check(), c.checkReaders(), c.checkMetrics(), c.checkCertificates(), c.checkBundlesOnce(), c.checkFolders(), c.checkSinks(), c.checkWorkloadAPI()} {
		if f != nil {
			return f
		}
	}
	return nil
}

func (c *Config) checkOpenBao() *fault {
	o := c.OpenBao
	if len(o.Addresses) == 0 {
		return wrong("openbao", 0, "addresses", `for example addresses = ["https://spire.funlab.casa:8200"]`, "no address of OpenBao")
	}
	for _, a := range o.Addresses {
		if _, err := attest.Audience(a, o.Namespace, o.AuthPath); err != nil {
			return wrong("openbao", 0, "addresses", "an address is https://host:port and auth_path is auth/<mount>", "%q: %w", a, err)
		}
	}
	if o.Role == "" {
		return wrong("openbao", 0, "role", "name the role of the auth method that this host may use", "no role")
	}
	if o.WantedName != "" && attest.CheckHostName(o.WantedName) != nil {
		return wrong("openbao", 0, "wanted_name", "one label of lower-case letters, digits and hyphens, neither root nor default", "wanted_name = %q", o.WantedName)
	}
	return resolveFile("openbao", 0, "ca_file", &c.OpenBao.CAFile, "the CA that OpenBao's own certificate comes from, as PEM; there is no option to skip verification")
}

// checkSeal refuses PCRs that a program can set to anything: 16 and 23 can be
// reset by anybody, 17 to 22 by a dynamic launch, and what extends 16 and 21 to 23
// does not count as an update between policy and unsealing (TCG PC Client Platform
// TPM Profile 1.05, section 4.6).
func (c *Config) checkSeal() *fault {
	s := c.Seal
	switch {
	case s.Policy == "none" && (s.PCRs != nil || s.Bank != ""):
		return wrong("seal", 0, "policy", `policy = "none" is for any state of the machine: leave pcrs and pcr_bank out`, "policy and PCRs")
	case s.Policy == "none":
		return nil
	case s.Policy != "pcr":
		return wrong("seal", 0, "policy", `"pcr", or "none" for any state of the machine`, "policy = %q", s.Policy)
	}
	if err := (attest.Selection{Bank: s.Bank, PCRs: s.PCRs}).Check(); err != nil {
		return wrong("seal", 0, "pcrs", "PCRs of one bank, sha256 or sha384, ascending", "%w", err)
	}
	if i := slices.IndexFunc(s.PCRs, func(pcr int) bool { return pcr == 16 || pcr > 20 }); i >= 0 {
		return wrong("seal", 0, "pcrs", "PCRs 0 to 15; 7 is the default", "PCR %d can be set by programs while the system runs", s.PCRs[i])
	}
	return nil
}

var eks = []string{"auto", "rsa2048", "p256", "p384"}

func (c *Config) checkTPM() *fault {
	t := c.TPM
	if !slices.Contains(eks, t.EK) {
		return wrong("tpm", 0, "ek", "one of "+strings.Join(eks, ", "), "ek = %q", t.EK)
	}
	if !strings.HasPrefix(t.Device, "unix:/") && !strings.HasPrefix(t.Device, "tcp:") && !strings.HasPrefix(t.Device, "/dev/") {
		return wrong("tpm", 0, "device", "/dev/tpmrm0, unix:PATH or tcp:HOST:PORT", "device = %q", t.Device)
	}
	if f := c.checkEK(); f != nil {
		return f
	}
	const hint = "a file with the authorisation value, mode 0600"
	if t.OwnerAuthFile != "" {
		if f := resolveSecret("owner_auth_file", &c.TPM.OwnerAuthFile, hint); f != nil {
			return f
		}
	}
	if t.EndorsementAuthFile != "" {
		return resolveSecret("endorsement_auth_file", &c.TPM.EndorsementAuthFile, hint)
	}
	return nil
}

// checkEK looks at the certificates that a vendor delivers elsewhere than in the
// TPM.
func (c *Config) checkEK() *fault {
	t := &c.TPM
	if t.EKCertificate != "" && t.EKCertificate != NoCertificate {
		if f := resolveFile("tpm", 0, "ek_certificate", &t.EKCertificate, `the vendor's certificate of this TPM, DER or PEM; or "none"`); f != nil {
			return f
		}
	}
	switch {
	case t.EKIntermediates == "":
		return nil
	case t.EKCertificate == NoCertificate:
		return wrong("tpm", 0, "ek_intermediates", "remove one of the two lines", `ek_intermediates beside ek_certificate = "none"`)
	}
	return resolveFile("tpm", 0, "ek_intermediates", &t.EKIntermediates, "the vendor's CA certificates as PEM, the issuer of this TPM's first")
}

func (c *Config) checkPKI() *fault {
	if !mountPath.MatchString(c.PKI.Path) {
		return wrong("pki", 0, "path", `the mount of the issuing CA, for example "pki_int"`, "path = %q", c.PKI.Path)
	}
	return resolveFile("pki", 0, "anchor", &c.PKI.Anchor, "the root that every chain must reach, as PEM")
}

// resolveFile replaces path, which decides what is trusted, by the path without
// links of a file that root alone can have written.
func resolveFile(table string, index int, key string, path *string, hint string) *fault {
	return resolve(place{table, index, key}, path, false, hint)
}

// resolveSecret is resolveFile for a file of [tpm] that only its owner may read.
func resolveSecret(key string, path *string, hint string) *fault {
	return resolve(place{"tpm", 0, key}, path, true, hint)
}

func resolve(at place, path *string, secret bool, hint string) *fault {
	if !filepath.IsAbs(*path) {
		return &fault{at, fmt.Errorf("%s is not an absolute path", at.key), hint}
	}
	real, err := trustedFile(*path, secret)
	if err != nil {
		if errors.Is(err, errUntrusted) || errors.Is(err, errReadable) {
			hint = trustHint(*path, err)
		}
		return &fault{at, fmt.Errorf("%s: %w", at.key, err), hint}
	}
	*path = real
	return nil
}

func (c *Config) checkCertificates() *fault {
	if len(c.Certificates) == 0 {
		return wrong("certificate", 0, "", "add a [[certificate]] table for each certificate this host keeps", "no certificate to keep")
	}
	if len(c.Certificates) > attest.MaxKeys {
		return wrong("certificate", attest.MaxKeys, "", "one host keeps at most 16", "%d certificates", len(c.Certificates))
	}
	names, profiles := map[string]bool{}, map[string]bool{}
	for i := range c.Certificates {
		cert := &c.Certificates[i]
		if names[cert.Name] {
			return wrong("certificate", i, "name", "give each certificate a name of its own", "name %q stands twice", cert.Name)
		}
		if profiles[cert.Profile] && cert.Profile != General {
			return wrong("certificate", i, "profile", "a host runs one of each service: remove one of the tables", "profile %q stands twice", cert.Profile)
		}
		names[cert.Name], profiles[cert.Profile] = true, true
		if f := cert.check(i); f != nil {
			return f
		}
	}
	if profiles["keylime-verifier-client"] && !profiles["keylime-verifier"] {
		return wrong("certificate", 0, "", "add the verifier's own certificate: one drop-in configures both", "profile keylime-verifier-client without keylime-verifier")
	}
	return c.checkTogether()
}

var (
	certName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	mountPath = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)
	pkiRole   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,126}$`)
	version   = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+$`)
	// A host name of RFC 1123 without wildcard: each label of letters, digits and
	// inner hyphens. localhost is one.
	hostName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

func (c *Certificate) check(i int) *fault {
	at := func(key, hint, format string, args ...any) *fault {
		return wrong("certificate", i, key, hint, format, args...)
	}
	switch {
	case !certName.MatchString(c.Name) || c.Name == "ca" || c.Name == "clients-ca" || c.Name == "root":
		return at("name", "one label of lower-case letters, digits and hyphens; it names the files, and ca.crt, clients-ca.crt and root.crt are CA files", "name = %q", c.Name)
	case Profiles[c.Profile] == "" && c.Profile != General:
		return at("profile", "one of "+strings.Join(profileNames(), ", "), "profile = %q", c.Profile)
	case c.Profile != General && c.Mode != "drop-in" && c.Mode != "edit":
		return at("mode", `"drop-in" or "edit"; drop-in is the default`, "mode = %q", c.Mode)
	case c.Usage() == Root:
		return c.checkRoot(i, at)
	case c.TTL.Duration < 5*time.Minute || c.TTL.Duration > 90*24*time.Hour:
		return at("ttl", "between 5m and 2160h; 24h is usual", "ttl = %s", c.TTL.Duration)
	case !mountPath.MatchString(c.Path):
		return at("path", `the mount of the issuing CA, for example "pki_int"`, "path = %q", c.Path)
	case c.Role != "" && !pkiRole.MatchString(c.Role):
		return at("role", "leave it out: <host>.<usage> is what OpenBao enforces", "role = %q", c.Role)
	case c.AgentVersion != "" && !version.MatchString(c.AgentVersion):
		return at("agent_version", `as in agent_version = "0.2.9"`, "agent_version = %q", c.AgentVersion)
	}
	if f := c.checkProfile(i, at); f != nil {
		return f
	}
	if f := c.checkNames(at); f != nil {
		return f
	}
	if f := c.checkKey(at); f != nil {
		return f
	}
	if f := c.Service.check(i); f != nil {
		return f
	}
	if f := c.checkBundles(at); f != nil {
		return f
	}
	return resolveFile("certificate", i, "anchor", &c.Anchor, "the root that this certificate's chain must reach, as PEM")
}

// maxNames bounds the further names, and the addresses, of one certificate.
const maxNames = 32

type atFunc func(key, hint, format string, args ...any) *fault

func (c *Certificate) checkNames(at atFunc) *fault {
	if !isHostName(c.CommonName) || len(c.CommonName) > 64 {
		return at("common_name", "a host name of at most 64 characters, without wildcard", "common_name = %q", c.CommonName)
	}
	if len(c.DNS) > maxNames || len(c.IP) > maxNames {
		return at("dns", "fewer: a certificate is for one service", "more than %d names or addresses", maxNames)
	}
	for i, name := range c.DNS {
		if !isHostName(name) || slices.Contains(c.DNS[:i], name) {
			return at("dns", "host names in lower case, each once, without wildcard", "dns name %q", name)
		}
	}
	for _, ip := range c.IP {
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return at("ip", "addresses of this host", "ip %s", ip)
		}
	}
	if c.URI == "" {
		return nil
	}
	if _, err := spiffeid.FromString(c.URI); err != nil {
		return at("uri", "a SPIFFE ID, spiffe://trust-domain/path", "uri = %q: %w", c.URI, err)
	}
	return nil
}

func isHostName(s string) bool { return len(s) <= 253 && hostName.MatchString(s) }

func (s Service) check(i int) *fault {
	at := func(key, hint, format string, args ...any) *fault {
		return wrong("certificate.service", i, key, hint, format, args...)
	}
	switch {
	case len(s.Start) > 0 && s.Unit != "":
		return at("start", "a service has a unit or a start command, not both", "unit and start together")
	case len(s.Start) > 0 && !filepath.IsAbs(s.Start[0]):
		return at("start", "the program with its full path, then its arguments; no shell reads it", "start = %q", s.Start)
	case len(s.Start) > 0 && !filepath.IsAbs(s.PIDFile):
		return at("pid_file", "an absolute path below /run", "a start command without pid_file")
	case s.Log != "" && !filepath.IsAbs(s.Log):
		return at("log", "an absolute path", "log = %q", s.Log)
	case s.Unit != "" && !strings.HasSuffix(s.Unit, ".service"):
		return at("unit", "the full name, ending in .service", "unit = %q", s.Unit)
	}
	if s.Probe != "" {
		if err := checkProbe(s.Probe); err != nil {
			return at("probe", "host:port at which the service answers", "probe = %q: %w", s.Probe, err)
		}
	}
	return s.checkPrograms(at)
}

func checkProbe(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" || port == "" {
		return errors.New("host or port is absent")
	}
	return nil
}
