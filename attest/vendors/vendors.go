// SPDX-License-Identifier: Apache-2.0

package vendors

import (
	_ "embed" // the bundle
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"funlab.casa/omen/attest"
)

var (
	//go:embed roots-hardware.pem
	hardware string
	//go:embed roots-firmware.pem
	firmware string
	//go:embed roots-virtual.pem
	virtual string
	//go:embed intermediates.pem
	intermediates string
)

// Roots is the PEM bundle of the built-in roots of one class, words before each
// certificate included. It begins with a newline, so that it can follow another
// bundle. The class uncertified and unknown ones have none.
func Roots(class attest.EKClass) []byte {
	switch class {
	case attest.ClassHardware:
		return []byte("\n" + hardware)
	case attest.ClassFirmware:
		return []byte("\n" + firmware)
	case attest.ClassVirtual:
		return []byte("\n" + virtual)
	default:
		return nil
	}
}

// Intermediates is the PEM bundle of the built-in intermediate certificates, in
// the form of [Roots]. They are believed only as far as a root vouches for them.
func Intermediates() []byte { return []byte("\n" + intermediates) }

// Certificate is one certificate of the bundle, as the words before it tell.
type Certificate struct {
	Vendor   string
	Subject  string         // as [crypto/x509/pkix.Name.String] spells it
	SHA256   string         // of the DER certificate, 64 lower-case hex digits
	Use      string         // "root" or "intermediate"
	Class    attest.EKClass // of what it stands for
	NotAfter time.Time      // midnight UTC of the day
	Source   string         // a source of the file SOURCES
	Path     string         // of its file in that source
	AlsoIn   string         // other public sets with the same certificate, or ""
	Note     string         // what is unusual about it, or ""
	DER      []byte
}

// List is the whole bundle: the roots from the strongest class to the weakest,
// then the intermediate certificates. An error means that the bundle is damaged.
func List() ([]Certificate, error) {
	var list []Certificate
	for _, text := range []string{hardware, firmware, virtual, intermediates} {
		for rest := []byte(text); len(rest) > 0; {
			block, after := pem.Decode(rest)
			if block == nil {
				return nil, errors.New("words that no certificate follows")
			}
			words := string(rest[:len(rest)-len(after)])
			c, err := describe(words)
			if err != nil {
				return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
			}
			c.DER, rest = block.Bytes, after
			list = append(list, c)
		}
	}
	return list, nil
}

// describe reads the lines "Word: value" that stand before a certificate.
func describe(words string) (c Certificate, err error) {
	var class, day string
	fields := map[string]*string{
		"Vendor": &c.Vendor, "Subject": &c.Subject, "SHA-256": &c.SHA256, "Use": &c.Use, "Class": &class,
		"Not after": &day, "Source": &c.Source, "Path": &c.Path, "Also in": &c.AlsoIn, "Note": &c.Note,
	}
	words, _, _ = strings.Cut(words, "-----BEGIN ")
	for line := range strings.Lines(strings.TrimSpace(words)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), ": ")
		field := fields[name]
		if !found || field == nil || *field != "" {
			return c, fmt.Errorf("line %q", line)
		}
		*field = value
	}
	c.Class = attest.EKClass(class)
	c.NotAfter, err = time.Parse(time.DateOnly, day)
	return c, err
}
