// SPDX-License-Identifier: Apache-2.0

package fileset

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/tss2"
)

// maxPassword bounds a password, in bytes.
const maxPassword = 1024

// pkcs12File is a PKCS#12 file (RFC 7292) of a pair: AES-256-CBC with PBKDF2, as
// OpenSSL 3 and Java 12 and newer read it. It is as secret as the key: the password is
// for what demands one.
func pkcs12File(root, passwordFile string, key []byte, chain []*x509.Certificate) ([]byte, error) {
	if tss2.Is(key) {
		return nil, errors.New("the key is in the TPM: a PKCS#12 file holds the key itself")
	}
	signer, _, err := keypair.ParseKey(key)
	if err != nil {
		return nil, err
	}
	password, err := readPassword(root, passwordFile)
	if err != nil {
		return nil, err
	}
	salts, err := saltsOf(key, chain, password)
	if err != nil {
		return nil, err
	}
	content, err := pkcs12.Modern2023.WithRand(salts).Encode(signer, chain[0], chain[1:], password)
	if err != nil {
		return nil, errors.New("the PKCS#12 file cannot be made") // what is wrapped may tell of the key
	}
	return content, nil
}

// saltsOf is what the salts of a PKCS#12 file are read from: bound to all that goes in,
// so that the same is written again and the bytes tell whether a file is ours. A key
// has the entropy, and says nothing of itself (RFC 5869).
func saltsOf(key []byte, chain []*x509.Certificate, password string) (io.Reader, error) {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	h.Write([]byte(password))
	salts, err := hkdf.Key(sha256.New, key, h.Sum(nil), "omen PKCS#12 salts", saltBytes)
	return bytes.NewReader(salts), err
}

// saltBytes is more than a file with one key and one chain has of salts and IVs.
const saltBytes = 512

// readPassword reads a password that root alone can have written and read.
func readPassword(root, name string) (string, error) {
	dir, err := beneath.Open(root, path.Dir(name))
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	defer dir.Close()
	f, err := dir.Read(path.Base(name), maxPassword)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	if f.Mode&0o077 != 0 {
		return "", remedy.Errorf("chmod go= "+name, "password %s can be read by others than its owner", name)
	}
	password := strings.TrimRight(string(f.Content), "\r\n")
	if password == "" || strings.Contains(password, "\n") {
		return "", fmt.Errorf("password %s is not one line", name)
	}
	return password, nil
}
