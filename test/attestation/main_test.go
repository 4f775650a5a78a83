// SPDX-License-Identifier: Apache-2.0

package attestation_test

import (
	"testing"

	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check is must for a call with a result: check(h.ReadFile(path))(t).
func check[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return value
	}
}
