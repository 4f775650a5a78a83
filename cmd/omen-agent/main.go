// SPDX-License-Identifier: Apache-2.0

// Command omen-agent keeps a host's certificates: it proves the identity of the
// host's TPM to OpenBao, has keys signed that never leave the host, installs the
// certificates all at once, and goes back when they are not served.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"

	"funlab.casa/omen/internal/order"
)

// version is set when a release is built.
var version = "dev"

func main() {
	if filepath.Base(os.Args[0]) == order.Program { // a link to this program, run by systemd
		order.Main(os.Args[1:], os.Stderr)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without its process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	c := new(cli)
	parser, err := newParser(c, stdout, stderr, &code)
	if err != nil {
		return complain(stderr, err)
	}
	defer func() {
		// kong ends --help by calling its exit function, which leaves by this panic.
		if p := recover(); p != nil && p != any(leave{}) {
			panic(p)
		}
	}()
	parsed, err := parser.Parse(args)
	if err != nil {
		return complain(stderr, usageError(err))
	}
	return complain(stderr, parsed.Run(c.job(ctx, stdout, stderr)))
}

// leave unwinds from kong's exit function to run.
type leave struct{}

func newParser(c *cli, stdout, stderr io.Writer, code *int) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("omen-agent"),
		kong.Description("Keeps this host's certificates: proves the TPM to OpenBao, issues, installs, proves what is served."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(n int) { *code = n; panic(leave{}) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"config": configPath},
	)
}

// complain prints an error and its remedy and returns the exit code.
func complain(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "omen-agent: error: %s\n", printable(err.Error()))
	if h := hint(err); h != "" {
		fmt.Fprintf(stderr, "omen-agent: hint: %s\n", printable(h))
	}
	return exitCode(err)
}

// errUsage marks a command line that asks for what this version does not do.
var errUsage = errors.New("usage")

func usageError(err error) error { return fmt.Errorf("%w: %w", errUsage, err) }
