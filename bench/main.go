// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"funlab.casa/omen/test/world"
)

// limit is how long everything may take together.
const limit = 40 * time.Minute

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "bare":
		os.Exit(bare(os.Args[2], os.Args[3]))
	case len(os.Args) == 5 && os.Args[1] == "restart":
		os.Exit(bareRestart(os.Args[2], os.Args[3], os.Args[4]))
	case len(os.Args) == 2 && parts[os.Args[1]] != nil:
		code, done := world.Enter()
		if !done {
			code = report(inside(os.Args[1]))
		}
		os.Exit(code)
	default:
		os.Exit(report(measure()))
	}
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

func measure() error {
	short := flag.Bool("short", false, "fewer pairs and hosts; print, and write no file")
	only := flag.String("only", "", "groups to measure, comma-separated, of "+names()+"; print, and write no file")
	dir := flag.String("dir", "", "where the servers keep their data; the system's directory for temporary files by default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b, err := newBench(*short, *dir)
	if err != nil {
		return err
	}
	defer b.Close()
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	failed := b.run(ctx, chosen)
	page := b.page(ctx)
	fmt.Print(page)
	if failed != nil || *short || *only != "" {
		return failed
	}
	return b.write(page)
}

// choose finds groups by their names; no names are all of them.
func choose(only string) ([]group, error) {
	if only == "" {
		return groups, nil
	}
	var chosen []group
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, g := range groups {
			if g.name == name {
				chosen, found = append(chosen, g), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no group is called %q: they are %s", name, names())
		}
	}
	return chosen, nil
}
