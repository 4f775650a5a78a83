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
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if m := tableLine.FindStringSubmatch(lines.Text()); m != nil {
			if table = m[1]; table == "certificate" {
				index++
			}
			if table == p.table && sameIndex(index, p) {
				header = n
			}
			continue
		}
		m := keyLine.FindStringSubmatch(lines.Text())
		if m != nil && table == p.table && sameIndex(index, p) && m[1] == p.key {
			return n
		}
	}
	return header
}

// sameIndex: a table that stands once is found wherever it is.
func sameIndex(index int, p place) bool {
	return !strings.HasPrefix(p.table, "certificate") || index == p.index
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
