// SPDX-License-Identifier: Apache-2.0

package output

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"funlab.casa/omen/tools/program"
)

// Order says what is to be made, of what, and where.
type Order struct {
	Version string    // checked
	Date    time.Time // of every file
	Source  string    // the checkout
	Out     string    // the folder that gets the files
}

// Main is the process of a maker: it ends with code 1 where that fails.
func Main(name string, make func(context.Context, Order) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := Run(ctx, name, os.Args[1:], make); err != nil {
		fmt.Fprintf(os.Stderr, "%s: error: %v\n", name, err)
		stop()
		os.Exit(1)
	}
}

// Run reads the command line and has the order made.
func Run(ctx context.Context, name string, args []string, make func(context.Context, Order) error) (err error) {
	var o Order
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&o.Version, "version", "", "version of what is made, a semantic version with v")
	flags.StringVar(&o.Source, "source", "..", "the checkout")
	flags.StringVar(&o.Out, "out", "../dist/out", "the folder to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := program.CheckVersion(o.Version); err != nil {
		return err
	}
	if o.Date, err = program.SourceDate(ctx, o.Source, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	return make(ctx, o)
}

// Clear makes the folder, and removes from it what an earlier run left: files, and the
// checksums of whatever version.
func (o Order) Clear(files []string, checksums string) error {
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(o.Out, checksums+"v*.txt"))
	if err != nil {
		return err
	}
	for _, file := range append(files, old...) {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// Write puts a file into place.
func (o Order) Write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(o.Out, name), content, 0o644) //nolint:gosec // public
}

// WriteChecksums writes the SHA-256 of files, in the form that `sha256sum -c` reads.
func (o Order) WriteChecksums(files []string, checksums string) error {
	var out bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(content), filepath.Base(file))
	}
	return o.Write(checksums+o.Version+".txt", out.Bytes())
}
