// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"os"
	"testing"

	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) {
	code, done := world.Enter()
	if !done {
		code = m.Run()
	}
	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
