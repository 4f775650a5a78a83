// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"testing"

	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
