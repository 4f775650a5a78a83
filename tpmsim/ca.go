// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// InstallHint is the line that installs what this package runs.
const InstallHint = "apt-get install -y swtpm swtpm-tools"

// ErrNotInstalled says that a program of swtpm is missing; its text carries
// [InstallHint].
var ErrNotInstalled = errors.New("swtpm is not installed, try: " + InstallHint)

// A CA is a TPM vendor: a swtpm-localca of our own (root and issuing
// certificate, RSA-3072) that lives in one directory.
type CA struct {
	dir    string
	root   *x509.Certificate
	issuer *x509.Certificate
	mu     sync.Mutex // swtpm_localca counts serial numbers in a file
}

// NewCA makes a vendor in dir, or opens the one that is there already. The
// directory is created if need be; its private keys are only for TPMs that
// nobody trusts.
func NewCA(dir string) (*CA, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca := &CA{dir: dir}
	if err = ca.configure(); err != nil {
		return nil, err
	}
	if err = ca.ensureKeys(); err != nil {
		return nil, err
	}
	if ca.root, err = readCertificate(ca.path(rootFile)); err != nil {
		return nil, err
	}
	ca.issuer, err = readCertificate(ca.path(issuerFile))
	return ca, err
}

// The names swtpm_localca gives its files.
const (
	rootFile    = "swtpm-localca-rootca-cert.pem"
	issuerFile  = "issuercert.pem"
	keyFile     = "signkey.pem"
	setupFile   = "swtpm_setup.conf"
	localcaFile = "swtpm-localca.conf"
	optionsFile = "swtpm-localca.options"
)

func (ca *CA) path(name string) string { return filepath.Join(ca.dir, name) }

// configure writes the three files that keep swtpm_setup away from the
// machine's own configuration. They hold absolute paths, so they are written
// again each time a directory is opened.
func (ca *CA) configure() error {
	tool, err := program("swtpm_localca")
	if err != nil {
		return err
	}
	files := map[string]string{
		setupFile: fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\nactive_pcr_banks = sha1,sha256\n",
			tool, ca.path(localcaFile), ca.path(optionsFile)),
		localcaFile: fmt.Sprintf("statedir = %s\nsigningkey = %s\nissuercert = %s\ncertserial = %s\n",
			ca.dir, ca.path(keyFile), ca.path(issuerFile), ca.path("certserial")),
		optionsFile: "--platform-manufacturer tpmsim\n--platform-version 1.0\n--platform-model tpmsim\n",
	}
	for name, text := range files {
		if err := os.WriteFile(ca.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// ensureKeys has swtpm_localca make its two keys, which it does when it is
// first asked for a certificate: here for a modulus that is nobody's key.
func (ca *CA) ensureKeys() error {
	if _, err := os.Stat(ca.path(issuerFile)); err == nil {
		return nil
	}
	modulus := bytes.Repeat([]byte("c5"), 256)
	scratch, err := os.MkdirTemp(ca.dir, "first")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	return run("swtpm_localca", "--type", "ek", "--ek", string(modulus), "--dir", scratch, "--vmid", "first",
		"--tpm2", "--tpm-spec-family", "2.0", "--tpm-spec-revision", "164", "--tpm-spec-level", "0",
		"--tpm-manufacturer", "id:00001014", "--tpm-model", "swtpm", "--tpm-version", "id:20191023",
		"--configfile", ca.path(localcaFile), "--optsfile", ca.path(optionsFile))
}

// Root is the vendor's self-signed certificate.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Issuer is the certificate that signs EK certificates, itself signed by Root.
func (ca *CA) Issuer() *x509.Certificate { return ca.issuer }

// PEM is Root and Issuer as an operator pins them: no EK certificate of swtpm
// names a place where its issuer could be fetched.
func (ca *CA) PEM() []byte {
	return append(encodePEM(ca.root), encodePEM(ca.issuer)...)
}

// Issue signs a certificate as the vendor would, for tests that need an EK
// certificate swtpm does not make: another curve, a bent extension. It returns
// DER; template and public are those of [x509.CreateCertificate].
func (ca *CA) Issue(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	text, err := os.ReadFile(ca.path(keyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM block", keyFile)
	}
	key, err := parsePrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", keyFile, err)
	}
	return x509.CreateCertificate(rand.Reader, template, ca.issuer, public, key)
}

// deviceName is what swtpm_setup may get as the name of a machine; it goes
// into a certificate's subject and into argv.
var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

// Manufacture makes a new device: RSA-2048 and P-384 endorsement keys with
// certificates, a platform certificate, locked NVRAM, PCR banks SHA-1 and
// SHA-256. It takes most of a second; [State.Clone] copies the result for next
// to nothing, with the same keys. name is letters, digits and dashes.
func (ca *CA) Manufacture(name string) (*State, error) {
	if !deviceName.MatchString(name) {
		return nil, fmt.Errorf("manufacture: bad device name %q", name)
	}
	dir, err := os.MkdirTemp(ca.dir, "device-"+name+"-")
	if err != nil {
		return nil, err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	err = run("swtpm_setup", "--tpm2", "--tpmstate", dir, "--config", ca.path(setupFile),
		"--create-ek-cert", "--create-platform-cert", "--lock-nvram",
		"--pcr-banks", "sha1,sha256", "--vmid", name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("manufacture %s: %w", name, err), os.RemoveAll(dir))
	}
	return &State{dir: dir}, nil
}

// program finds an executable, in the sbin directories too: a test run by a
// user has none of them in PATH.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/bin", "/usr/local/bin", "/usr/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, ErrNotInstalled)
}

func run(name string, args ...string) error {
	path, err := program(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(output))
	}
	return nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM block", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func parsePrivateKey(der []byte) (any, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParsePKCS1PrivateKey(der)
}

func encodePEM(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}
