// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"funlab.casa/omen/tools/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "package: error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var b batch
	flags := flag.NewFlagSet("package", flag.ContinueOnError)
	flags.StringVar(&b.version, "version", "", "version of the programs, a semantic version with v")
	flags.StringVar(&b.source, "source", "..", "the checkout")
	flags.StringVar(&b.out, "out", "../dist/out", "the folder to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := program.CheckVersion(b.version); err != nil {
		return err
	}
	date, err := program.SourceDate(ctx, b.source, os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	b.date = date
	return b.make(ctx)
}
