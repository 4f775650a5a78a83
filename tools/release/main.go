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
		fmt.Fprintln(os.Stderr, "release: error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var r release
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "version of the plugin, a semantic version with v")
	flags.StringVar(&r.source, "source", "..", "the checkout")
	flags.StringVar(&r.out, "out", "../dist/out", "the folder to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := program.CheckVersion(r.version); err != nil {
		return err
	}
	date, err := program.SourceDate(ctx, r.source, os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	r.date = date
	return r.make(ctx)
}
