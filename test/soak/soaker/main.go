// SPDX-License-Identifier: Apache-2.0

// Command soaker is omen-agent run for whom no time goes by: a renewal is due whenever a
// line comes on standard input, and every wait is over at once. After each attempt it
// writes a line that says what it came to and what the process holds. It ends with its
// input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/daemon"
)

func main() {
	if err := soak(); err != nil {
		fmt.Fprintln(os.Stderr, "soaker:", err)
		os.Exit(1)
	}
}

func soak() error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	d := daemon.Daemon{
		Load:  func() (daemon.Host, error) { return newHost(log, stop) },
		Clock: &hurry{}, Supervisor: nobody{}, Log: log, Hint: remedy.Of,
	}
	return d.Run(ctx)
}

// host is the real one, for which a renewal is always due.
type host struct {
	*agent.Agent
	lines *bufio.Scanner
	stop  context.CancelFunc
}

func newHost(log *slog.Logger, stop context.CancelFunc) (*host, error) {
	c, err := config.Load(config.DefaultPath)
	if err != nil {
		return nil, err
	}
	a, err := agent.New(c, log)
	return &host{Agent: a, lines: bufio.NewScanner(os.Stdin), stop: stop}, err
}

// Look looks for real, and finds a renewal due in any case.
func (h *host) Look(ctx context.Context) (*agent.Found, error) {
	found, err := h.Agent.Look(ctx)
	if err == nil {
		found.Renew = "soak"
		found.Status.HeldUntil = time.Time{} // an hour would be over at once
	}
	return found, err
}

// report is what is written of an attempt.
type report struct {
	Error       string `json:"error"`
	Idle        int    `json:"idle"` // resident memory while it waited before, in KiB
	RSS         int    `json:"rss"`  // and after it, before what it needed is given back
	Descriptors int    `json:"descriptors"`
	Goroutines  int    `json:"goroutines"`
}

// RenewDue renews when it is told to.
func (h *host) RenewDue(ctx context.Context) (*agent.Outcome, error) {
	if !h.lines.Scan() {
		h.stop()
		return nil, errors.Join(io.EOF, h.lines.Err())
	}
	outcome, failed := h.Agent.RenewDue(ctx)
	r := report{Idle: int(idle.Load()), RSS: rss(), Descriptors: descriptors(), Goroutines: runtime.NumGoroutine()}
	if failed != nil {
		r.Error = failed.Error()
	}
	return outcome, errors.Join(failed, json.NewEncoder(os.Stdout).Encode(r))
}

// rss is the resident memory of this process, 0 where it is not known.
func rss() (kib int) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	_, _ = fmt.Sscan(after, &kib)
	return kib
}

func descriptors() int {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(open)
}

// idle is the resident memory at the last wait, in KiB.
var idle atomic.Int64

// hurry is a clock on which every wait is over at once.
type hurry struct{ elapsed atomic.Int64 }

func (h *hurry) Now() time.Time         { return time.Now() }
func (h *hurry) Elapsed() time.Duration { return time.Duration(h.elapsed.Load()) }

func (h *hurry) Until(_ context.Context, t time.Time) error {
	idle.Store(int64(rss()))
	h.elapsed.Add(int64(max(time.Until(t), time.Millisecond)))
	return nil
}

// nobody supervises.
type nobody struct{}

func (nobody) Ready()        {}
func (nobody) Status(string) {}
func (nobody) Reloading()    {}
func (nobody) Stopping()     {}
func (nobody) Alive()        {}
