// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bufio"
	"bytes"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// place names a key of the file: its table, which one of the tables of that
// name, and the key.
type place struct {
	table string
	index int
	key   string
}

var (
	tableLine = regexp.MustCompile(`^\s*\[{1,2}\s*([A-Za-z0-9_.]+)\s*\]{1,2}`)
	keyLine   = regexp.MustCompile(`^\s*"?([A-Za-z0-9_-]+)"?\s*=`)
)

// locate gives the line of a place, or of its table when the key is absent, or
// 0 when the table is absent too. It reads lines, not TOML: a line number in an
// error is a help, nothing depends on it.
func locate(text []byte, p place) int {
	table, index, header := "", -1, 0
	root, _, _ := strings.Cut(p.table, ".")
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if m := tableLine.FindStringSubmatch(lines.Text()); m != nil {
			if table = m[1]; table == root {
				index++
			}
			if table == p.table && index == p.index {
				header = n
			}
			continue
		}
		m := keyLine.FindStringSubmatch(lines.Text())
		if m != nil && table == p.table && index == p.index && m[1] == p.key {
			return n
		}
	}
	return header
}

// locateKey gives the first line that sets an undecoded key.
func locateKey(text []byte, key toml.Key) int {
	table := strings.Join(key[:len(key)-1], ".")
	current := ""
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if m := tableLine.FindStringSubmatch(lines.Text()); m != nil {
			if current = m[1]; current == key.String() {
				return n
			}
		} else if m := keyLine.FindStringSubmatch(lines.Text()); m != nil && current == table && m[1] == key[len(key)-1] {
			return n
		}
	}
	return 0
}
