// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrOldAgent means that the agent is older than rust-keylime 0.2.9 or that its
// version is not known: with an EC key each of its quotes would fail.
var ErrOldAgent = errors.New("agent cannot use an EC key")

// firstEC is the first release of rust-keylime that attests with an EC key.
var firstEC = []int{0, 2, 9}

// release matches a version as packages write it: epoch, three numbers, rest.
var release = regexp.MustCompile(`^(?:[0-9]+:)?v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})((?:[^0-9].*)?)$`)

// UsesEC reports whether a rust-keylime of this version attests with an EC key.
// A pre-release of the first one does not count.
func UsesEC(version string) (bool, error) {
	parts := release.FindStringSubmatch(strings.TrimSpace(version))
	if parts == nil {
		return false, fmt.Errorf("version %q is not of the form 0.2.9", version)
	}
	numbers := make([]int, 0, len(firstEC))
	for _, text := range parts[1:4] {
		number, err := strconv.Atoi(text)
		if err != nil {
			return false, err
		}
		numbers = append(numbers, number)
	}
	if order := slices.Compare(numbers, firstEC); order != 0 {
		return order > 0, nil
	}
	return !strings.HasPrefix(parts[4], "~") && !strings.Contains(parts[4], "-rc"), nil
}

// APIUsesEC judges what an agent answers to /version over plain HTTP: the list
// supported_versions, and API 2.5, first appeared in 0.2.9; 0.2.8 stops at 2.2.
func APIUsesEC(one string, list []string) bool {
	if len(list) > 0 {
		return true
	}
	major, minor, dotted := strings.Cut(one, ".")
	high, err := strconv.Atoi(major)
	low, errLow := strconv.Atoi(minor)
	if !dotted || err != nil || errLow != nil {
		return false
	}
	return slices.Compare([]int{high, low}, []int{2, 5}) >= 0
}
