// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"funlab.casa/omen/test/crash"
)

// The main goroutine keeps the thread that it has while packages are set up.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "once: error:", err)
		os.Exit(1)
	}
}

func run() error {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "keylime_") {
		return crash.StandIn(os.Args[1:])
	}
	if len(os.Args) < 2 {
		return errors.New("usage: once ORDER [ORDER]")
	}
	for _, path := range os.Args[1:] {
		order, err := crash.Load(path)
		if err != nil {
			return err
		}
		if err := order.Perform(context.Background(), os.Stdout); err != nil {
			return err
		}
	}
	return nil
}
