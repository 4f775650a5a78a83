// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether a person looks at what is written there.
func isTerminal(w io.Writer) bool {
	f, is := w.(*os.File)
	if !is {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// coloured reports whether colours are welcome there (https://no-color.org).
func coloured(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

// A bottomLine is a terminal whose last line says what is being done. What is
// written goes above it.
type bottomLine struct {
	mutex sync.Mutex
	out   io.Writer
	line  string
}

// erase goes to the beginning of the line and clears it (ECMA-48: EL).
const erase = "\r\x1b[K"

// Write is of io.Writer.
func (b *bottomLine) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.line == "" {
		return b.out.Write(p)
	}
	if _, err := io.WriteString(b.out, erase); err != nil {
		return 0, err
	}
	n, err := b.out.Write(p)
	if err == nil {
		_, err = io.WriteString(b.out, b.line)
	}
	return n, err
}

// show replaces the line; "" takes it away.
func (b *bottomLine) show(line string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.line == "" && line == "" {
		return
	}
	_, _ = io.WriteString(b.out, erase+line) // without a terminal nobody misses it
	b.line = line
}
