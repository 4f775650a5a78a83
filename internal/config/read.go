// SPDX-License-Identifier: Apache-2.0

package config

import (
	"github.com/BurntSushi/toml"
)

// Read reads the configuration at path and judges nothing in it: keys that are not
// known are passed over, files that it names may be missing. It is for the start of
// the system, when they may lie on what is not mounted yet. Nothing in it is sound but
// what the caller has looked at. An absent file is os.ErrNotExist.
func Read(path string) (*Config, error) {
	text, err := readTrusted(path)
	if err != nil {
		return nil, &Error{File: path, Err: err, Hint: trustHint(path, err)}
	}
	c := new(Config)
	if _, err := toml.Decode(string(text), c); err != nil {
		return nil, syntaxError(path, err)
	}
	c.fill()
	return c, nil
}
