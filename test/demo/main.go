// SPDX-License-Identifier: Apache-2.0

// Command demo plays the story of package story with real parts, in a world of
// its own: OpenBao, Keylime, and two hosts with software TPMs. It needs root,
// for namespaces, and leaves nothing behind. With KEEP=1 the world stays after
// the story until Ctrl-C, and it says how to look around.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

// limit is well over what a slow machine needs for the story.
const limit = 5 * time.Minute

func main() { world.Main(play) }

func play() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s := &story.Story{}
	defer func() { _ = s.Close() }() // the kernel ends what is left
	fmt.Print("Omen: from two TPMs to certificates that Keylime serves, with real parts.\n\n")
	err := playWithin(ctx, s)
	if err != nil {
		tellFailure(s, err)
	}
	if os.Getenv("KEEP") == "1" && s.World != nil && ctx.Err() == nil {
		keep(ctx, s.World)
	}
	if err != nil {
		return 1
	}
	fmt.Println("demo: ok")
	return 0
}

func playWithin(ctx context.Context, s *story.Story) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.Play(ctx, os.Stdout, story.Steps())
}

func tellFailure(s *story.Story, err error) {
	if s.World != nil {
		if logs := s.World.Logs(15); logs != "" {
			fmt.Print("\nThe ends of the logs:\n", logs)
		}
	}
	fmt.Printf("\ndemo: failed: %v\n", err)
}

// keep leaves the world to a person.
func keep(ctx context.Context, w *world.World) {
	fmt.Print("\nKEEP=1: the world stays until Ctrl-C. As root, in another terminal:\n")
	for _, h := range w.Hosts() {
		fmt.Printf("  %-9s %s\n", h.Name, w.Shell(h))
	}
	<-ctx.Done()
	fmt.Println()
}
