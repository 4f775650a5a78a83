// SPDX-License-Identifier: Apache-2.0

package record

import (
	"regexp"
	"strings"
)

// None is the number of no generation.
const None = -1

// Bounds of what is written down.
const (
	MaxNumber  = 999999
	MaxFiles   = 256 // of a set, its manifest not counted
	MaxEntries = 64  // of each list in a record
	maxPath    = 4096
)

// shape is what a record may name a service or component by.
var shape = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// IsName reports that name can be that of a service or component.
func IsName(name string) bool { return shape.MatchString(name) }

// IsFileName reports that name can be that of a file in a folder.
func IsFileName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
}

// isNumber reports that n can be the number of a generation, or of none.
func isNumber(n int) bool { return n >= None && n <= MaxNumber }
