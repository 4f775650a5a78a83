// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"funlab.casa/omen/attest"
)

// bare does what a renewal cannot do without, and nothing else: one quote; a key
// and a CSR, and a chain check, for each certificate; the same files written and
// fsynced. It prints how long that took.
func bare(socket, sets string) int {
	spent, err := timeParts(socket, sets)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		return 1
	}
	fmt.Print(spent)
	return 0
}

func timeParts(socket, sets string) (time.Duration, error) {
	files, err := readSet(filepath.Join(sets, "current"))
	if err != nil {
		return 0, err
	}
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer connection.Close() //nolint:errcheck // nothing is left to lose
	tpm := transport.FromReadWriter(connection)
	public, err := tpm2.ReadPublic{ObjectHandle: attest.AKHandle}.Execute(tpm)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = errors.Join(quote(tpm, public.Name), keysAndChains(files), writeSet(sets, files))
	return time.Since(began), err
}

func quote(tpm transport.TPM, name tpm2.TPM2BName) error {
	_, err := tpm2.Quote{
		SignHandle:     tpm2.NamedHandle{Handle: attest.AKHandle, Name: name},
		QualifyingData: tpm2.TPM2BData{Buffer: make([]byte, 32)},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      attest.Selection{Bank: "sha256", PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7}}.TPM(),
	}.Execute(tpm)
	return err
}

// file is one file of the installed set.
type file struct {
	name    string
	content []byte
	info    os.FileInfo
}

func readSet(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		files = append(files, file{e.Name(), content, info})
	}
	return files, nil
}

func keysAndChains(files []file) error {
	var bundle []byte
	isBundle := func(f file) bool { return f.name == "ca.crt" || f.name == "clients-ca.crt" }
	for _, f := range files {
		if isBundle(f) {
			bundle = append(bundle, f.content...)
		}
	}
	for _, f := range files {
		if strings.HasSuffix(f.name, ".crt") && !isBundle(f) {
			if err := errors.Join(keyAndCSR(), checkChain(f.content, bundle)); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return nil
}

func keyAndCSR() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "verifier.keylime.funlab.casa"}, DNSNames: []string{"localhost"},
	}, key)
	return err
}

// checkChain verifies from the leaf to a root of the bundle.
func checkChain(leaf, bundle []byte) error {
	certificates, err := parse(append(slices.Clone(leaf), bundle...))
	if err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range certificates[1:] {
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			roots.AddCert(c)
		} else {
			intermediates.AddCert(c)
		}
	}
	_, err = certificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

func parse(text []byte) (certificates []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	return certificates, nil
}

// writeSet writes the files as a set of its own, makes it durable, and removes it.
func writeSet(sets string, files []file) (err error) {
	dir, err := os.MkdirTemp(sets, "bare-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, f := range files {
		if err := writeFile(filepath.Join(dir, f.name), f); err != nil {
			return err
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		return err
	}
	return errors.Join(os.Rename(link, link+"-current"), syncDir(dir), syncDir(sets))
}

func writeFile(path string, f file) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.info.Mode().Perm())
	if err != nil {
		return err
	}
	owner := f.info.Sys().(*syscall.Stat_t)
	err = out.Chown(int(owner.Uid), int(owner.Gid))
	_, written := out.Write(f.content)
	return errors.Join(err, written, out.Sync(), out.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
