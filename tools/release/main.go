// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"
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
	if err := checkVersion(r.version); err != nil {
		return err
	}
	date, err := sourceDate(ctx, r.source, os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	r.date = date
	return r.make(ctx)
}

// version is a semantic version that is a tag of an image as well: no "+".
var version = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

func checkVersion(v string) error {
	if !version.MatchString(v) || len(v) > 64 {
		return fmt.Errorf("version %q: want vMAJOR.MINOR.PATCH, with -PRERELEASE perhaps", v)
	}
	return nil
}

// sourceDate is the time that every file of the release gets: epoch, in seconds,
// where there is one, else that of the last commit. See
// https://reproducible-builds.org/specs/source-date-epoch/.
func sourceDate(ctx context.Context, source, epoch string) (time.Time, error) {
	if epoch == "" {
		git := exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%ct")
		out, err := git.Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("find the time of the last commit: %w: outside a clone, set SOURCE_DATE_EPOCH", err)
		}
		epoch = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
