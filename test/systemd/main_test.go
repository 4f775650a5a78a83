// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"funlab.casa/omen/test/nspawn"
)

// The test binary plays every part: started by go test it boots the container
// and runs itself inside; inside it runs the tests; and under the name of a part
// it is what a unit of the tests calls.
const (
	insideKey = "OMEN_TEST_SYSTEMD" // set inside
	venvKey   = "OMEN_TEST_VENV"    // the Python environment, the same path inside
	program   = "/opt/omen/test"    // this binary, inside
)

func TestMain(m *testing.M) {
	nspawn.Become()
	if part, known := parts[filepath.Base(os.Args[0])]; known {
		exit(part(os.Args[1:]))
	}
	if sandboxed() {
		os.Exit(m.Run())
	}
	if os.Getenv(insideKey) != "" {
		if err := layKeylime(os.Getenv(venvKey)); err != nil {
			exit(err)
		}
		if err := playRegistrar(); err != nil {
			exit(err)
		}
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code, err := testInside(ctx)
	stop()
	if err != nil {
		exit(err)
	}
	os.Exit(code)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/systemd:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
