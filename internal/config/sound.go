// SPDX-License-Identifier: Apache-2.0

package config

import (
	"github.com/BurntSushi/toml"
)

// Sound reads as much of the configuration at path as is right, for who looks at a
// host that nobody has finished setting up, and gives every fault. A table, a
// certificate or a value that is wrong is left out: what remains is checked. It is
// nothing to renew by: only [Load] says that all is right. Every fault is an *Error.
func Sound(path string) (*Config, []error) {
	text, err := readTrusted(path)
	if err != nil {
		return empty(), []error{&Error{File: path, Err: err, Hint: trustHint(path, err)}}
	}
	c := new(Config)
	meta, err := toml.Decode(string(text), c)
	if err != nil {
		return empty(), []error{syntaxError(path, err)}
	}
	var faults []error
	for _, key := range meta.Undecoded() {
		faults = append(faults, unknownKey(path, text, key))
	}
	c.fill()
	for _, f := range c.keepSound() {
		faults = append(faults, &Error{File: path, Line: locate(text, f.at), Err: f.err, Hint: f.hint})
	}
	return c, faults
}

// empty is what counts where the file says nothing.
func empty() *Config {
	c := new(Config)
	c.fill()
	return c
}

// keepSound drops what is wrong.
func (c *Config) keepSound() []*fault {
	var found []*fault
	drop := func(f *fault, without func(*fault)) {
		if f != nil {
			found = append(found, f)
			without(f)
		}
	}
	drop(c.checkOpenBao(), func(f *fault) { c.OpenBao.without(f.at.key) })
	drop(c.checkTPM(), func(*fault) { c.TPM = empty().TPM })
	drop(c.checkSeal(), func(*fault) { c.Seal = empty().Seal })
	drop(c.Boot.check(), func(*fault) { c.Boot = empty().Boot })
	drop(c.checkPKI(), func(*fault) { c.PKI.Anchor = "" })
	drop(c.checkKeylime(), func(*fault) { c.Keylime.ClientCA, c.Keylime.ServerCA = "", "" })
	drop(c.checkReaders(), func(*fault) { c.Keylime.Readers = nil })
	drop(c.checkMetrics(), func(*fault) { c.Metrics = Metrics{} })
	drop(c.checkSinks(), func(*fault) { c.Sinks = nil })
	drop(c.checkWorkloadAPI(), func(*fault) { c.WorkloadAPI = WorkloadAPI{} })
	found = append(found, c.keepSoundCertificates()...)
	if len(found) == 0 { // the lines are those of the whole file
		drop(c.checkBundlesOnce(), func(*fault) {})
		drop(c.checkFolders(), func(*fault) {})
	}
	return found
}

// without takes out the value that is wrong: of a server whose CA is not known the
// address can still be looked at.
func (o *OpenBao) without(key string) {
	switch key {
	case "addresses":
		o.Addresses = nil
	case "role":
		o.Role = ""
	case "ca_file":
		o.CAFile = ""
	case "wanted_name":
		o.WantedName = ""
	}
}

// keepSoundCertificates drops the certificates that are wrong by themselves. What is
// wrong between two of them is told last, when nothing else is.
func (c *Config) keepSoundCertificates() []*fault {
	first := c.checkCertificates()
	var found []*fault
	var sound []Certificate
	for i := range c.Certificates {
		if f := c.Certificates[i].check(i); f != nil {
			found = append(found, f)
			continue
		}
		sound = append(sound, c.Certificates[i])
	}
	c.Certificates = sound
	if len(found) == 0 && first != nil {
		found = append(found, first)
	}
	return found
}
