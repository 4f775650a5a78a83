// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A token is not printed on a terminal, whose history keeps it.
func TestTokenIsNotPrintedOnATerminal(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var complaint bytes.Buffer
	if code := run(t.Context(), []string{"--config", "/nonexistent", "login", "--print"}, terminal, &complaint); code != exitUsage ||
		!strings.Contains(complaint.String(), "standard output is a terminal") {
		t.Errorf("exit code %d: %s", code, complaint.String())
	}
	read, write, err := os.Pipe()
	if err = errors.Join(err); err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	if isTerminal(write) || isTerminal(&complaint) {
		t.Error("a pipe is taken for a terminal")
	}
}
