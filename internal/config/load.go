// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"
)

// maxFile bounds agent.toml, in bytes.
const maxFile = 256 << 10

// Error is a fault in the configuration, with its place and its remedy.
type Error struct {
	File string
	Line int // 0 when the fault has no line
	Err  error
	Hint string
}

// Error gives file, line and fault.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap gives the fault itself.
func (e *Error) Unwrap() error { return e.Err }

// Load reads and checks the configuration at path. Every error is an *Error.
func Load(path string) (*Config, error) {
	text, err := readTrusted(path)
	if err != nil {
		return nil, &Error{File: path, Err: err, Hint: trustHint(path, err)}
	}
	return parse(path, text)
}

// LoadTPM reads no more than the TPM table of the configuration, for what an
// operator asks before the rest is there. An absent file means the defaults.
func LoadTPM(path string) (*TPM, error) {
	text, err := readTrusted(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, &Error{File: path, Err: err, Hint: trustHint(path, err)}
	}
	c := new(Config)
	if _, err := toml.Decode(string(text), c); err != nil {
		return nil, syntaxError(path, err)
	}
	c.fill()
	if f := c.checkTPM(); f != nil {
		return nil, &Error{File: path, Line: locate(text, f.at), Err: f.err, Hint: f.hint}
	}
	return &c.TPM, nil
}

// parse reads text as the configuration at path.
func parse(path string, text []byte) (*Config, error) {
	c := new(Config)
	meta, err := toml.Decode(string(text), c)
	if err != nil {
		return nil, syntaxError(path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, unknownKey(path, text, unknown[0])
	}
	c.fill()
	if f := c.check(); f != nil {
		return nil, &Error{File: path, Line: locate(text, f.at), Err: f.err, Hint: f.hint}
	}
	return c, nil
}

func syntaxError(path string, err error) error {
	var p toml.ParseError
	if errors.As(err, &p) {
		return &Error{File: path, Line: p.Position.Line, Err: errors.New(p.Message),
			Hint: "correct this line; the format is TOML"}
	}
	return &Error{File: path, Err: err, Hint: "correct this value; the format is TOML"}
}

func unknownKey(path string, text []byte, key toml.Key) error {
	return &Error{File: path, Line: locateKey(text, key), Err: fmt.Errorf("unknown key %q", key.String()),
		Hint: "remove the line or correct the name; docs/configuration.md lists the keys"}
}

// errReadable says that a secret is there for others than root.
var errReadable = errors.New("can be read by others than its owner")

// readTrusted reads a file that root alone can have written. Every folder on
// the way to it, and to where links on it lead, is held to the same.
func readTrusted(path string) ([]byte, error) {
	real, err := trustedWay(path)
	if err != nil {
		return nil, err
	}
	return readRegular(real)
}

// trustedFile is trustedWay for a file that somebody else reads, held to what
// agent.toml is held to. Of a secret nobody but the owner may read anything.
func trustedFile(path string, secret bool) (string, error) {
	real, err := trustedWay(path)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(real)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", path)
	case secret && info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%s %w", real, errReadable)
	}
	return real, ownedByRoot(real, info)
}

func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := ownedByRoot(path, info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d KiB", path, maxFile>>10)
	}
	return b, err
}

func trustHint(path string, err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "write it, or name another with --config; docs/configuration.md shows an example"
	case errors.Is(err, errUntrusted):
		return "chown root: and chmod go-w what the message names"
	case errors.Is(err, errReadable):
		return "chmod go= what the message names"
	default:
		return "make " + path + " readable"
	}
}
