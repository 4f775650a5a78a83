// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Attributes of a TPM in the directoryName of subjectAltName (TCG EK Credential
// Profile 2.6, 3.2.9).
var (
	oidTPMManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidTPMModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidTPMVersion      = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
)

// maxAttribute bounds, in characters, what is kept of one attribute.
const maxAttribute = 64

// tpmName is what a certificate calls the TPM it is for.
type tpmName struct{ manufacturer, model, firmware string }

// attributeSET is one RelativeDistinguishedName; encoding/asn1 goes by the
// ending of the name.
type attributeSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// parseTPMName reads the one directoryName in the GeneralNames of a
// subjectAltName (RFC 5280, 4.2.1.6). Names of other forms and attributes of
// other types are passed over; the three of a TPM must each be there once.
func parseTPMName(extension []byte) (name tpmName, err error) {
	var names []asn1.RawValue
	if err = unmarshalAll(extension, &names); err != nil {
		return name, err
	}
	found := false
	for _, n := range names {
		if n.Class != asn1.ClassContextSpecific || n.Tag != 4 {
			continue
		}
		if found {
			return name, errors.New("more than one directoryName")
		}
		found = true
		var rdns []attributeSET
		if err = unmarshalAll(n.Bytes, &rdns); err != nil {
			return name, err
		}
		if name, err = nameOf(rdns); err != nil {
			return name, err
		}
	}
	if !found {
		return name, errors.New("no directoryName")
	}
	return name, nil
}

func nameOf(rdns []attributeSET) (name tpmName, err error) {
	for _, rdn := range rdns {
		for _, a := range rdn {
			var field *string
			switch {
			case a.Type.Equal(oidTPMManufacturer):
				field = &name.manufacturer
			case a.Type.Equal(oidTPMModel):
				field = &name.model
			case a.Type.Equal(oidTPMVersion):
				field = &name.firmware
			default:
				continue
			}
			if *field != "" {
				return name, errors.New("an attribute of a TPM is there twice")
			}
			if *field, err = text(a.Value); err != nil {
				return name, err
			}
		}
	}
	if name.manufacturer == "" || name.model == "" || name.firmware == "" {
		return name, errors.New("manufacturer, model or version of the TPM is missing")
	}
	name.manufacturer, name.firmware = manufacturer(name.manufacturer), firmware(name.firmware)
	return name, nil
}

func unmarshalAll(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) != 0 {
		err = errors.New("trailing bytes")
	}
	return err
}

// text is the value of an attribute whose type is a string of ASCII or UTF-8.
func text(v asn1.RawValue) (string, error) {
	if v.Class == asn1.ClassUniversal {
		switch v.Tag {
		case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String:
			return legible(string(v.Bytes), maxAttribute), nil
		}
	}
	return "", errors.New("an attribute of a TPM is not a string")
}

// manufacturer reads "id:" and the hex digits of the four ASCII characters that
// the TCG Vendor ID Registry gives a vendor: id:53544D20 is STM. Anything else
// stays as it is.
func manufacturer(certified string) string {
	digits, found := strings.CutPrefix(certified, "id:")
	ascii, err := hex.DecodeString(digits)
	name := strings.Trim(string(ascii), " \x00")
	isLetter := func(r rune) bool { return r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) }
	if !found || err != nil || len(ascii) != 4 || name == "" || strings.TrimFunc(name, isLetter) != "" {
		return certified
	}
	return name
}

// firmware is the hex digits after "id:", in lower case; vendors read them in
// different ways.
func firmware(certified string) string {
	digits, found := strings.CutPrefix(certified, "id:")
	if _, err := hex.DecodeString(digits); !found || err != nil {
		return certified
	}
	return strings.ToLower(digits)
}

// legible replaces what is not a printable character by U+FFFD and cuts after
// limit characters.
func legible(s string, limit int) string {
	kept := 0
	return strings.Map(func(r rune) rune {
		kept++
		switch {
		case kept > limit:
			return -1
		case unicode.IsPrint(r):
			return r
		default:
			return utf8.RuneError
		}
	}, s)
}
