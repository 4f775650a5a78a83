// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// SecureBootState is what PCR 7 proves about UEFI Secure Boot.
type SecureBootState string

// The states. Unknown is never as good as off: nothing is proven then.
const (
	SecureBootUnknown SecureBootState = "unknown"
	SecureBootOn      SecureBootState = "on"
	SecureBootOff     SecureBootState = "off"
)

// The variables that hold the keys of Secure Boot (UEFI, "Secure Boot and Driver
// Signing"), by the names that UEFI gives them.
const (
	PK  = "PK"  // platform key: who may change KEK
	KEK = "KEK" // who may change db and dbx
	DB  = "db"  // whose code runs
	DBX = "dbx" // whose code does not
)

// SecureBoot is the configuration that PCR 7 proves.
type SecureBoot struct {
	State  SecureBootState
	Reason string // why it is unknown; holds nothing the host wrote
	// Keys has the SHA-256 of each key variable's content, whatever the bank. One
	// that the firmware did not measure is not in it.
	Keys map[string][sha256.Size]byte
}

// secureBootVariable is one of five, by GUID as it lies in memory and by name.
type secureBootVariable struct{ guid, name string }

const (
	globalVariable        = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c" // EFI_GLOBAL_VARIABLE
	imageSecurityDatabase = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f" // EFI_IMAGE_SECURITY_DATABASE_GUID

	secureBootIndex = 0
)

var secureBootVariables = [...]secureBootVariable{
	{globalVariable, "SecureBoot"},
	{globalVariable, PK},
	{globalVariable, KEK},
	{imageSecurityDatabase, DB},
	{imageSecurityDatabase, DBX},
}

// SecureBoot reads the configuration from PCR 7: everything before its separator.
// What comes after, the keys that code was verified with, is no configuration,
// whatever type it claims.
//
// It is unknown when PCR 7 was not quoted or has no separator, when an event
// before the separator is not measured by its data or is no variable, and when a
// variable was measured twice with different content. No SecureBoot variable, or
// an empty one, is off.
//
// Source: TCG PC Client Platform Firmware Profile, "PCR[7] – Secure Boot Policy
// Measurements".
func (p *Proven) SecureBoot() SecureBoot {
	if !p.Covers(7) {
		return unknown("PCR 7 is not among the quoted PCRs")
	}
	marks := p.log.bank.separators()
	var c configuration
	for e := range p.log.Events() {
		if e.PCR != 7 || !e.Extends() {
			continue
		}
		if marks.has(e.Digest) {
			return c.result()
		}
		if !p.log.bank.hashes(e.Data, e.Digest) {
			return unknown(fmt.Sprintf("event %d is not measured by its data", e.Index))
		}
		if reason := c.add(e.Data); reason != "" {
			return unknown(fmt.Sprintf("event %d: %s", e.Index, reason))
		}
	}
	return unknown("PCR 7 has no separator")
}

func unknown(reason string) SecureBoot {
	return SecureBoot{State: SecureBootUnknown, Reason: reason}
}

// configuration collects the measured variables.
type configuration struct {
	content [len(secureBootVariables)][]byte
	seen    [len(secureBootVariables)]bool
}

// Actions that firmware measures into PCR 7 beside variables.
const (
	debugMode   = "UEFI Debug Mode"         // a debugger can change what runs
	dmaDisabled = "DMA Protection Disabled" // says nothing about Secure Boot
)

// add takes measured data and says why the configuration is unknown, if it is.
func (c *configuration) add(data []byte) (reason string) {
	switch string(data) {
	case debugMode:
		return "a firmware debugger is on"
	case dmaDisabled:
		return ""
	}
	v, ok := readVariable(data)
	if !ok {
		return "its data is not a variable"
	}
	i := v.index()
	if i < 0 {
		return ""
	}
	if c.seen[i] && !bytes.Equal(c.content[i], v.content) {
		return secureBootVariables[i].name + " was measured before with other content"
	}
	c.seen[i], c.content[i] = true, v.content
	return ""
}

func (c *configuration) result() SecureBoot {
	r := SecureBoot{Keys: make(map[string][sha256.Size]byte, len(secureBootVariables)-1)}
	switch string(c.content[secureBootIndex]) {
	case "\x01":
		r.State = SecureBootOn
	case "", "\x00":
		r.State = SecureBootOff
	default:
		return unknown("SecureBoot is neither 0 nor 1")
	}
	for i, v := range secureBootVariables {
		if i != secureBootIndex && c.seen[i] {
			r.Keys[v.name] = sha256.Sum256(c.content[i])
		}
	}
	return r
}

// variable is a UEFI_VARIABLE_DATA (TCG PC Client Platform Firmware Profile,
// "UEFI_VARIABLE_DATA Structure"): parts of the log.
type variable struct {
	guid, name []byte // name is UTF-16, little endian
	content    []byte
}

// readVariable reads exactly one, to the last byte.
func readVariable(data []byte) (v variable, ok bool) {
	c := &cursor{rest: data}
	v.guid = c.take(16)
	characters, size := c.uint64(), c.uint64()
	if characters > uint64(len(data)) {
		return v, false
	}
	v.name = c.take(2 * characters)
	v.content = c.take(size)
	return v, c.done()
}

// index is the place among the variables that matter, or -1.
func (v variable) index() int {
	for i, s := range secureBootVariables {
		if string(v.guid) == s.guid && equalUTF16(v.name, s.name) {
			return i
		}
	}
	return -1
}

func equalUTF16(utf16 []byte, ascii string) bool {
	if len(utf16) != 2*len(ascii) {
		return false
	}
	for i := range len(ascii) {
		if utf16[2*i] != ascii[i] || utf16[2*i+1] != 0 {
			return false
		}
	}
	return true
}
