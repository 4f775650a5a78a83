// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"

	"funlab.casa/omen/install/remedy"
)

// maxConfig bounds one configuration file, in bytes.
const maxConfig = 1 << 20

// Settings are the effective values of one component, as its own parser would
// see them without environment variables.
type Settings map[string]string

// Load reads a component's main file and drop-ins below root, last one wins.
// Files that are missing are no error.
func (p Profile) Load(root string) (Settings, error) {
	effective := Settings{}
	for _, path := range p.files(root) {
		values, err := p.read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for key, value := range values {
			effective[key] = value
		}
	}
	return effective, nil
}

// files lists what the component reads, in its order.
func (p Profile) files(root string) []string {
	name := p.Component + ".conf"
	vendor, local := filepath.Join(root, VendorDir), filepath.Join(root, ConfigDir)
	vendorDrops, localDrops := dropIns(filepath.Join(vendor, name+".d")), dropIns(filepath.Join(local, name+".d"))
	if p.TOML {
		files := append([]string{filepath.Join(vendor, name)}, vendorDrops...)
		return append(append(files, filepath.Join(local, name)), localDrops...)
	}
	main := filepath.Join(vendor, name)
	if _, err := os.Stat(filepath.Join(local, name)); err == nil {
		main = filepath.Join(local, name)
	}
	return append(append([]string{main}, vendorDrops...), localDrops...)
}

// dropIns lists every regular file of a directory, sorted; hidden ones and
// backups too, as Keylime does.
func dropIns(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var files []string
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			files = append(files, path)
		}
	}
	return files
}

// readText reads a whole configuration file. Its folder belongs to Keylime: a pipe
// there is not waited for.
func readText(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: not a regular file", path), err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxConfig)
	}
	return text, err
}

func (p Profile) read(path string) (Settings, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	if p.TOML {
		return parseAgent(path, string(text))
	}
	return parseINI(string(text))[p.Component], nil
}

func parseAgent(path, text string) (Settings, error) {
	var file struct {
		Agent map[string]any `toml:"agent"`
	}
	if _, err := toml.Decode(text, &file); err != nil {
		return nil, remedy.Errorf("mend the file: the agent itself would not start with it", "%s: %w", path, err)
	}
	values := Settings{}
	for key, value := range file.Agent {
		values[key] = fmt.Sprint(value)
	}
	return values, nil
}

// Get returns a value without the quotes that Keylime takes off, or other.
func (s Settings) Get(key, other string) string {
	value, set := s[key]
	if !set {
		return other
	}
	return strings.Trim(value, `"'`)
}

// Endpoint returns the address and port that the service listens on.
func (p Profile) Endpoint(s Settings) (ip string, port int, err error) {
	text := s.Get(p.PortKey, strconv.Itoa(p.Port))
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 {
		return "", 0, fmt.Errorf("%s.conf: %s = %q is not a port", p.Component, p.PortKey, text)
	}
	return s.Get("ip", ""), int(number), nil
}

// ErrNoMainFile means that Keylime would ignore every drop-in of a component.
var ErrNoMainFile = errors.New("main configuration file is missing, so its drop-ins would be ignored")

// CheckMainFile returns ErrNoMainFile where the component needs one and has none.
func (p Profile) CheckMainFile(root string) error {
	if p.TOML {
		return nil
	}
	name := p.Component + ".conf"
	for _, dir := range []string{ConfigDir, VendorDir} {
		if info, err := os.Stat(filepath.Join(root, dir, name)); err == nil && info.Mode().IsRegular() {
			return nil
		}
	}
	hint := fmt.Sprintf("keylime_upgrade_config --defaults makes %s/%s (or the distribution's %s/%s)", ConfigDir, name, VendorDir, name)
	return remedy.Errorf(hint, "%s: %w", name, ErrNoMainFile)
}
