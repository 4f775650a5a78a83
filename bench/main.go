// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "bare" {
		os.Exit(bare(os.Args[2], os.Args[3]))
	}
	code, done := world.Enter()
	if !done {
		code = measure()
	}
	os.Exit(code)
}

func measure() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if err := measureIn(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func measureIn(ctx context.Context) error {
	s := &story.Story{}
	defer s.Close() //nolint:errcheck // the kernel ends what is left
	// The story up to the first renewal: after it the AK is pinned and persisted.
	if err := s.Play(ctx, io.Discard, story.Steps()[:5]); err != nil {
		return err
	}
	f, err := agentFigures(ctx, s.Spire)
	if err != nil {
		return err
	}
	return f.write(s.World.Tools.Module)
}
