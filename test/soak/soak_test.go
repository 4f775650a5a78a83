// SPDX-License-Identifier: Apache-2.0

//go:build long

package soak_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

const (
	renewals = 200
	settled  = 30 // renewals after which nothing grows any more
	soaker   = "/usr/bin/soaker"
	stateDir = "/var/lib/omen-agent"
	soakLog  = "/var/log/soaker.log"
)

// A life is an agent that renews over and over on the host auth.
type life struct {
	t       *testing.T
	story   *story.Story
	host    *world.Host
	stdin   io.WriteCloser
	reports *bufio.Scanner
	random  *rand.Rand
	faults  []fault
}

// report is what the soaker says of an attempt.
type report struct {
	Error                              string
	Idle, RSS, Descriptors, Goroutines int
}

// mostIdle is the memory of an agent that waits, in KiB.
const mostIdle = 20 << 10

// TestSoak renews two hundred times, with a fault in every other one.
func TestSoak(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 15*time.Minute)
	t.Cleanup(cancel)
	l := newLife(ctx, t)
	var all []report
	good, hit := 0, map[string]int{}
	for range renewals {
		f := l.pick()
		r := l.renew(ctx, f)
		if r.Error == "" {
			good++
		} else {
			hit[f.name]++
			t.Logf("%s: %s", f.name, r.Error)
		}
		all = append(all, r)
	}
	last := l.renew(ctx, fault{name: "none"})
	if last.Error != "" {
		t.Errorf("it does not recover: %s", last.Error)
	}
	t.Logf("%d of %d renewals were good; failed by fault: %v", good, renewals, hit)
	if good < renewals/2 || len(hit) < 3 {
		t.Errorf("%d good renewals, failures by %v", good, hit)
	}
	l.checkGrowth(all, last)
	l.checkLeft(ctx)
}

// newLife tells the story up to a host that has been enrolled, with a small disk of its
// own for what the agent writes.
func newLife(ctx context.Context, t *testing.T) *life {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &story.Story{}
	t.Cleanup(func() {
		if t.Failed() && s.World != nil {
			t.Log(s.World.Logs(40))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, step := range story.Steps()[:6] {
		if _, err := step.Run(ctx, s); err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
	}
	l := &life{t: t, story: s, host: s.World.Host("auth"), random: rand.New(rand.NewPCG(seed, 1))}
	l.faults = l.allFaults()
	l.smallDisk(ctx)
	l.begin(ctx)
	return l
}

// smallDisk moves the state of the agent to a file system of two megabytes.
func (l *life) smallDisk(ctx context.Context) {
	l.t.Helper()
	l.sh(ctx, "cp -a "+stateDir+" /var/lib/moved && mount -t tmpfs -o size=2m,mode=0711 small "+stateDir+" && cp -a /var/lib/moved/. "+stateDir+"/")
}

func (l *life) sh(ctx context.Context, script string) {
	l.t.Helper()
	if _, err := l.host.Must(ctx, "sh", "-c", script); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) begin(ctx context.Context) {
	l.t.Helper()
	program, err := l.story.World.Tools.Program("soaker")
	l.must(err)
	_, err = l.host.Must(ctx, "install", "-m", "0755", program, soaker)
	l.must(err)
	l.story.World.Watch(l.host, soakLog)
	l.must(l.host.WriteFile(soakLog, nil, 0o600))
	command := l.host.Command(ctx, "sh", "-c", "exec "+soaker+" 2>>"+soakLog)
	l.stdin, err = command.StdinPipe()
	l.must(err)
	out, err := command.StdoutPipe()
	l.must(err)
	l.reports = bufio.NewScanner(out)
	l.must(command.Start())
	l.t.Cleanup(func() {
		if err := errors.Join(l.stdin.Close(), command.Wait()); err != nil {
			l.t.Errorf("soaker: %v", err)
		}
	})
}

func (l *life) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// renew has one renewal made, with a fault that comes in its midst and goes again.
func (l *life) renew(ctx context.Context, f fault) report {
	l.t.Helper()
	if _, err := io.WriteString(l.stdin, "renew\n"); err != nil {
		l.t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- l.strike(ctx, f) }()
	if !l.reports.Scan() {
		l.t.Fatalf("the soaker has ended: %v", l.reports.Err())
	}
	l.must(<-over)
	var r report
	l.must(json.Unmarshal(l.reports.Bytes(), &r))
	return r
}

// checkGrowth compares the last renewals with those at the beginning.
func (l *life) checkGrowth(all []report, last report) {
	l.t.Helper()
	most := func(of func(report) int) int {
		return of(slices.MaxFunc(all[:settled], func(a, b report) int { return of(a) - of(b) }))
	}
	for name, of := range map[string]func(report) int{
		"descriptors": func(r report) int { return r.Descriptors },
		"goroutines":  func(r report) int { return r.Goroutines },
	} {
		if before := most(of); of(last) > before {
			l.t.Errorf("%s: %d at the end, at most %d in the first %d renewals", name, of(last), before, settled)
		}
	}
	rss := func(r report) int { return r.RSS }
	l.t.Logf("memory: at most %d KiB in the first %d renewals, %d KiB at the end, %d KiB idle", most(rss), settled, last.RSS, last.Idle)
	if last.Idle == 0 || last.Idle > mostIdle {
		l.t.Errorf("idle memory: %d KiB after %d renewals, at most %d are wanted", last.Idle, len(all), mostIdle)
	}
	if last.RSS > most(rss)*5/4 {
		l.t.Errorf("memory: %d KiB at the end, at most %d KiB in the first %d renewals", last.RSS, most(rss), settled)
	}
}

// checkLeft looks for what renewals leave: in the TPM, and on the disk.
func (l *life) checkLeft(ctx context.Context) {
	l.t.Helper()
	if left, err := l.host.TPM.Leaks(); err != nil || len(left) > 0 {
		l.t.Errorf("left in the TPM: %x, %v", left, err)
	}
	found, err := l.host.Must(ctx, "find", stateDir, "/run/omen-agent", "/etc/keylime")
	l.must(err)
	for name := range strings.Lines(found.Stdout) {
		name = strings.TrimSpace(name)
		if strings.Contains(path.Base(name), ".new") || strings.Contains(path.Base(name), ".json-") {
			l.t.Errorf("a temporary file is left: %s", name)
		}
	}
	for _, folder := range []string{stateDir + "/keylime", "/run/omen-agent/keylime"} {
		entries, err := l.host.ReadDir(folder)
		l.must(err)
		generations := 0
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), "gen-") || strings.HasPrefix(entry.Name(), "refused-") {
				generations++
			}
		}
		if generations > 4 { // the current one, the one before, what was found, what was refused
			l.t.Errorf("%d sets are left in %s: %v", generations, folder, entries)
		}
	}
	served, err := l.story.World.Served(ctx, l.host.IP+":9002")
	l.must(err)
	installed, err := l.host.Installed("agent")
	l.must(err)
	if !served.Equal(installed) {
		l.t.Error("what is installed is not what is served")
	}
}
