// SPDX-License-Identifier: Apache-2.0

package order

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"funlab.casa/omen/internal/config"
)

// Program is the generator's name, by which the agent's program knows that it is
// meant.
const Program = "omen-agent-generator"

// Main is the generator: args are the folders that systemd gives it, of which the
// first is written to. It has no exit code, so that it cannot keep a system from
// booting; what is wrong is said in the kernel's log, or to stderr.
func Main(args []string, stderr io.Writer) {
	if err := generate(args, config.DefaultPath, "/", isThere); err != nil {
		report(err, stderr)
	}
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// generate writes the drop-ins of the configuration, for a host whose units lie below
// root. Without a configuration there is nothing to write: the units do not start.
func generate(args []string, path, root string, there func(path string) bool) error {
	if len(args) != 1 && len(args) != 3 { // systemd.generator(7)
		return errors.New("usage: " + Program + " NORMAL-DIR [EARLY-DIR LATE-DIR]")
	}
	c, err := config.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p, refused := makePlan(c, there)
	errs := []error{refused}
	if len(p.before) > 0 {
		errs = append(errs, p.sortOut(readSequence(root)))
	}
	for _, one := range p.dropIns() {
		errs = append(errs, one.write(args[0]))
	}
	return errors.Join(errs...)
}

func (d dropIn) write(folder string) error {
	path := filepath.Join(folder, d.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(d.text), 0o644) //nolint:gosec // units are public
}

// report writes one line to the kernel's log, which is there before the journal.
func report(err error, stderr io.Writer) {
	line := Program + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	if file, failed := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); failed == nil {
		_, failed = fmt.Fprintf(file, "<4>%s\n", line)
		if errors.Join(failed, file.Close()) == nil {
			return
		}
	}
	fmt.Fprintln(stderr, line)
}
