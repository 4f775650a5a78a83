// SPDX-License-Identifier: Apache-2.0

package account

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// rows returns the records of etc/passwd or etc/group that have enough fields.
func (b Book) rows(file string, fields int) ([][]string, error) {
	text, err := os.ReadFile(filepath.Join(b.root, "etc", file))
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		row := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(row) >= fields {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (b Book) userFromFiles(name string) (Account, error) {
	rows, err := b.rows("passwd", 7)
	if err != nil {
		return Account{}, err
	}
	for _, row := range rows {
		if row[0] == name || row[2] == name {
			return assemble(row[0], row[5], row[2], row[3], b.groupsOf(row[0]))
		}
	}
	return Account{}, UnknownError{name}
}

func (b Book) groupsOf(name string) []string {
	rows, err := b.rows("group", 4)
	if err != nil {
		return nil
	}
	var ids []string
	for _, row := range rows {
		if slices.Contains(strings.Split(row[3], ","), name) {
			ids = append(ids, row[2])
		}
	}
	return ids
}

func (b Book) groupFromFiles(name string) (int, error) {
	rows, err := b.rows("group", 4)
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		if row[0] == name || row[2] == name {
			return strconv.Atoi(row[2])
		}
	}
	return 0, UnknownError{name}
}
