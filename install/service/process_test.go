// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/install/internal/cell"
)

const port = 8881

func open(t *testing.T, spec Spec) *Process {
	t.Helper()
	if spec.Root == "" {
		spec.Root = "/"
	}
	if spec.PIDFile == "" {
		spec.PIDFile = filepath.Join(t.TempDir(), "fake.pid")
	}
	s, err := newProcess(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRestartStopsTheWholeTreeAndNothingElse(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	bystander := byHand(t, "", "/usr/bin/sleep", "1000") // in the same session and process group
	byHand(t, "", fake, "parent", fmt.Sprint(port))
	eventually(t, "started by hand", func() bool { return listens(port) && len(alive(t)) == 3 && ignoringTERM(t) == 2 })
	before := alive(t)

	s := open(t, Spec{Start: []string{fake, "parent", fmt.Sprint(port)}, Port: port})
	began := time.Now()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < grace || took > grace+afterKill {
		t.Errorf("took %s: what ignores TERM is killed after %s", took, grace)
	}
	eventually(t, "listens again", func() bool { return listens(port) && len(alive(t)) == 3 })
	for pid := range alive(t) {
		if _, old := before[pid]; old {
			t.Errorf("process %d survived", pid)
		}
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the bystander in the same process group: %v", err)
	}
	if err := s.Alive(t.Context()); err != nil {
		t.Error(err)
	}
}

// ignoringTERM counts the processes of the fake service that do by now (proc(5), SigIgn).
func ignoringTERM(t *testing.T) (count int) {
	t.Helper()
	for pid := range alive(t) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
		_, after, _ := strings.Cut(string(status), "SigIgn:\t")
		mask, _, _ := strings.Cut(after, "\n")
		if ignored, err := strconv.ParseUint(mask, 16, 64); err == nil && ignored&(1<<(syscall.SIGTERM-1)) != 0 {
			count++
		}
	}
	return count
}

func TestOrphanedWorkerIsFoundByItsPort(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	parent := byHand(t, "", fake, "parent", fmt.Sprint(port))
	eventually(t, "started", func() bool { return listens(port) && len(alive(t)) == 3 })
	if err := parent.Process.Kill(); err != nil { // what HUP does to the verifier
		t.Fatal(err)
	}
	eventually(t, "parent gone", func() bool { return len(alive(t)) == 2 })

	s := open(t, Spec{Start: []string{fake, "worker", fmt.Sprint(port)}, Port: port})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens again", func() bool { return listens(port) })
}

func TestOwnSessionIsStoppedEvenWhenItsLeaderDied(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	s := open(t, Spec{Start: []string{fake, "parent", fmt.Sprint(port)}, Port: port})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "started", func() bool { return listens(port) && len(alive(t)) == 3 })
	started, err := s.running()
	if err != nil || len(started) != 1 {
		t.Fatalf("running: %v, %v", started, err)
	}
	members := tree{}
	if err := members.grow(started); err != nil || len(members) != 3 {
		t.Fatalf("tree of %d, %v; want 3", len(members), err)
	}
	if err := syscall.Kill(started[0].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "leader gone", func() bool { return len(alive(t)) == 2 })
	members = tree{}
	if err := members.grow(started); err != nil || len(members) != 3 {
		t.Errorf("tree of %d, %v; want leader and its session", len(members), err)
	}
}

func TestPIDFileThatMeansAnotherProcessIsIgnored(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	sleeper := byHand(t, "", "/usr/bin/sleep", "1000")
	named := byHand(t, "", fake, "stubborn")
	eventually(t, "started", func() bool { return len(alive(t)) == 1 })
	s := open(t, Spec{Start: []string{fake, "worker", fmt.Sprint(port)}, Port: port})
	for name, bend := range map[string]func(){
		"other program":      func() { writePID(t, s, sleeper.Process.Pid, 0o644) },
		"started afterwards": func() { writePID(t, s, named.Process.Pid, 0o644); age(t, s.spec.PIDFile) },
		"writable by others": func() { writePID(t, s, named.Process.Pid, 0o666) },
		"this process":       func() { writePID(t, s, os.Getpid(), 0o644) },
		"init":               func() { writePID(t, s, 1, 0o644) },
		"no such process":    func() { writePID(t, s, 4190000, 0o644) },
		"no number":          func() { writeFile(t, s.spec.PIDFile, "-1 x\n", 0o644) },
	} {
		bend()
		if p, ok := s.fromPIDFile(); ok {
			t.Errorf("%s: process %d accepted", name, p.pid)
		}
	}
	writePID(t, s, named.Process.Pid, 0o644)
	if p, ok := s.fromPIDFile(); !ok || p.pid != named.Process.Pid {
		t.Error("the right process is not accepted")
	}
}

func TestStrangerOnThePortIsLeftAlone(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	fake := linkProgram(t)
	_, err = newProcess(Spec{Root: "/", Start: []string{fake, "worker"}, Port: port})
	if err == nil || !strings.Contains(err.Error(), "is held by process") {
		t.Errorf("got %v", err)
	}
}

func TestStartBecomesTheUserAndKeepsTheLog(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake, root := linkProgram(t), t.TempDir()
	writeUsers(t, root)
	log := filepath.Join(root, "var/log/fake.log")
	writeFile(t, log, "older line\n", 0o600)
	s := open(t, Spec{Root: root, Start: []string{fake, "parent", fmt.Sprint(port)}, User: "keylime:tss", Log: "/var/log/fake.log", PIDFile: "/run/fake.pid", Port: port})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens", func() bool { return listens(port) })
	text := readFile(t, log)
	if want := "older line\nuid 4711 gid 4713 groups [4714] environment 5 part parent\n"; text != want {
		t.Errorf("log is %q, want %q", text, want)
	}
	pidFile := filepath.Join(root, "run/fake.pid")
	info, err := os.Lstat(pidFile)
	if err != nil || info.Mode() != 0o644 || readFile(t, pidFile) != fmt.Sprintln(s.onlyProcess(t)) {
		t.Errorf("pid file: %v, %v, %q", info, err, readFile(t, pidFile))
	}
}

// onlyProcess is the number of the one process that runs.
func (s *Process) onlyProcess(t *testing.T) int {
	t.Helper()
	running, err := s.running()
	if err != nil || len(running) != 1 {
		t.Fatalf("running: %v, %v", running, err)
	}
	return running[0].pid
}

func TestRestoreBringsBackWhatRan(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake, log := linkProgram(t), filepath.Join(t.TempDir(), "by-hand.log")
	byHand(t, log, fake, "worker", fmt.Sprint(port))
	eventually(t, "started by hand", func() bool { return listens(port) })
	s := open(t, Spec{Start: []string{fake, "broken"}, Port: port})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ended", func() bool { return errors.Is(s.Alive(context.Background()), ErrNotRunning) })
	if err := s.Alive(t.Context()); !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want the exit status", err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old one listens", func() bool { return listens(port) })
	running, err := s.running()
	if err != nil || len(running) != 1 {
		t.Fatalf("running: %v, %v", running, err)
	}
	if got := running[0].arguments(); strings.Join(got, " ") != fake+" worker "+fmt.Sprint(port) || running[0].output().Name() != log {
		t.Errorf("restored as %q, log %q", got, running[0].output().Name())
	}
}

// The Rust agent starts as root and becomes its user: as that user it could not
// start again.
func TestServiceThatDropsItsRightsComesBackWithThem(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	asUser(t, 4711, nil, fake, fake, "worker", fmt.Sprint(port))
	eventually(t, "runs as its user", func() bool { return listens(port) })
	s := open(t, Spec{Start: []string{fake, "worker", fmt.Sprint(port)}, User: "root", Drops: true, Port: port})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restarted", func() bool { return listens(port) })
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restored", func() bool { return listens(port) })
	who, err := process{pid: s.onlyProcess(t)}.identity()
	if err != nil || who.UID != 0 {
		t.Errorf("came back as %d, %v", who.UID, err)
	}
}

// TestEnvironmentOfWhatRuns: names only, and after a restart those are gone.
func TestEnvironmentOfWhatRuns(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	t.Setenv("KEYLIME_VERIFIER_CONFIG", "/srv/secret.conf")
	fake := linkProgram(t)
	byHand(t, "", fake, "parent", fmt.Sprint(port))
	eventually(t, "started by hand", func() bool { return listens(port) && len(alive(t)) == 3 })
	s := open(t, Spec{Start: []string{fake, "parent", fmt.Sprint(port)}, Port: port})
	if got := s.Environment(); !slices.Contains(got, "KEYLIME_VERIFIER_CONFIG=") || strings.Contains(fmt.Sprint(got), "secret") {
		t.Errorf("started by hand: %v", got)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens again", func() bool { return listens(port) })
	if got := s.Environment(); slices.Contains(got, "KEYLIME_VERIFIER_CONFIG=") {
		t.Errorf("restarted: %v", got)
	}
}

func TestRestoreLeavesNothingWhereNothingRan(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	s := open(t, Spec{Start: []string{fake, "worker", fmt.Sprint(port)}, Port: port})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens", func() bool { return listens(port) })
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := alive(t); len(left) > 0 || listens(port) {
		t.Errorf("left: %v", left)
	}
}
