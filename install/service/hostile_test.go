// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"funlab.casa/omen/install/internal/cell"
)

// stranger is a user that no configuration names.
const stranger = 4999

// asUser starts a program that calls itself name, as a user, with stdout.
func asUser(t *testing.T, uid uint32, stdout *os.File, path, name string, args ...string) *exec.Cmd {
	t.Helper()
	command := &exec.Cmd{Path: path, Args: append([]string{name}, args...), Dir: "/", Stdout: stdout}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = command.Wait() }() // reaped whenever it ends
	return command
}

// Whoever listens on the port under the service's name would be given its key.
func TestProcessOfAnotherUserDoesNotBecomeTheOwner(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake, root := linkProgram(t), t.TempDir()
	writeUsers(t, root)
	asUser(t, stranger, nil, fake, fake, "worker", fmt.Sprint(port))
	eventually(t, "listens", func() bool { return listens(port) })
	spec := Spec{Root: root, Start: []string{fake, "worker", fmt.Sprint(port)}, Default: "keylime", Port: port}
	s, err := newProcess(spec)
	if err == nil {
		t.Fatalf("the key would belong to user %d", s.Account().UID)
	}
	if !strings.Contains(err.Error(), "runs as user 4999") {
		t.Errorf("got %v", err)
	}
	spec.User = "keylime"
	if s, err := newProcess(spec); err != nil || s.Account().UID != 4711 {
		t.Errorf("with a user configured: %v", err)
	}
}

// A setuid program runs as root and says what its caller wants: under any name,
// with any arguments, with the caller's listening socket.
func TestSetuidProgramIsNotStartedAgainAsRoot(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake, root := linkProgram(t), t.TempDir()
	writeUsers(t, root)
	setuid := filepath.Join(filepath.Dir(fake), "su")
	copyFile(t, "/proc/self/exe", setuid)
	if err := os.Chmod(setuid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	proof := filepath.Join(filepath.Dir(fake), "evil", program)
	writeFile(t, proof, "#!/bin/sh\nid -u >"+root+"/became\nsleep 1000\n", 0o755)
	asUser(t, 4711, nil, setuid, proof, "worker", fmt.Sprint(port))
	eventually(t, "listens", func() bool { return listens(port) })

	if s, err := newProcess(Spec{Root: root, Start: []string{fake, "broken"}, Default: "keylime", Port: port}); err == nil {
		t.Errorf("the service would run as user %d", s.Account().UID)
	}
	s := open(t, Spec{Root: root, Start: []string{fake, "broken"}, User: "keylime", Port: port, PIDFile: "/run/fake.pid"})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.before) != 0 {
		t.Errorf("would start %q as user %d", s.before[0].arguments, s.before[0].account.UID)
	}
}

// What ran had a file open that it may only read; root must not open it again
// for writing and hand it over.
func TestOutputIsHandedBackWithNoMoreRights(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake, root := linkProgram(t), t.TempDir()
	writeUsers(t, root)
	victim := filepath.Join(root, "etc/passwd")
	before := readFile(t, victim)
	stdout, err := os.Open(victim)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	asUser(t, 4711, stdout, fake, fake, "parent", fmt.Sprint(port)) // the part that writes when it starts
	eventually(t, "listens", func() bool { return listens(port) })
	s := open(t, Spec{Root: root, Start: []string{fake, "broken"}, User: "keylime", Port: port, PIDFile: "/run/fake.pid"})
	defer s.Close()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens again", func() bool { return listens(port) })
	if after := readFile(t, victim); after != before {
		t.Errorf("the service wrote into a file of root:\n%s", strings.TrimPrefix(after, before))
	}
}

func TestPIDFileOfAnotherUserIsIgnored(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	named := byHand(t, "", fake, "stubborn")
	eventually(t, "started", func() bool { return len(alive(t)) == 1 })
	s := open(t, Spec{Start: []string{fake, "worker", fmt.Sprint(port)}, Port: port})
	writePID(t, s, named.Process.Pid, 0o644)
	if err := os.Chown(s.spec.PIDFile, stranger, stranger); err != nil {
		t.Fatal(err)
	}
	if p, ok := s.fromPIDFile(); ok {
		t.Errorf("process %d accepted", p.pid)
	}
}

// The folder of a log belongs to the service's user, who puts a link where it
// was, or a second name of another's file where the log was.
func TestLogBehindALink(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/etc/verifier.log", "of root\n", 0o600)
	if err := os.Symlink(dir+"/etc", dir+"/log"); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(dir+"/etc/verifier.log", dir+"/second"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/log/verifier.log", dir + "/log/new.log", dir + "/second"} {
		if log, err := openLog(path); err == nil {
			t.Errorf("%s: opened %s", path, log.Name())
		}
	}
	if _, err := os.Stat(dir + "/etc/new.log"); err == nil {
		t.Error("written through a link")
	}
}

func TestNameOfAProcessIsShownShortAndPrintable(t *testing.T) {
	command := &exec.Cmd{Path: "/usr/bin/sleep", Args: []string{"\x1b]0;owned\a\u009b2J" + strings.Repeat("x", 100<<10), "1000"}}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command.Wait() }()
	defer func() { _ = command.Process.Kill() }()
	p := process{pid: command.Process.Pid}
	eventually(t, "started", func() bool { return len(p.arguments()) == 2 })
	if got := p.command(); len(got) > maxCommand || !strings.HasPrefix(got, "?]0;owned?") {
		t.Errorf("shown as %q", got)
	}
}

// Beside a service at one address everybody can listen at another one of the
// same port, under the service's name or under none. It must go on renewing.
func TestStrangersBesideTheServiceStopNothing(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake, root := linkProgram(t), t.TempDir()
	writeUsers(t, root)
	asUser(t, stranger, nil, fake, fake, "at", "127.0.0.9:8881") // the service's name, and the lowest number
	eventually(t, "the first listens", func() bool { return len(alive(t)) == 1 })
	asUser(t, 4711, nil, fake, fake, "worker", fmt.Sprint(port))
	eventually(t, "listens", func() bool { return listens(port) })
	listener, err := net.Listen("tcp", "127.0.0.10:8881")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	s, err := newProcess(Spec{Root: root, Start: []string{fake, "worker", fmt.Sprint(port)}, Default: "keylime", Port: port, PIDFile: "/run/fake.pid"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Account().UID != 4711 {
		t.Errorf("runs as %d", s.Account().UID)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens again", func() bool { return listens(port) })
}

// Whoever typed "sudo keylime_verifier" gets it back: sudo names the service too,
// but what can be started again is what it started.
func TestServiceBelowASetuidProgramComesBack(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	fake := linkProgram(t)
	sudo := filepath.Join(filepath.Dir(fake), "sudo")
	copyFile(t, "/proc/self/exe", sudo)
	if err := os.Chmod(sudo, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	asUser(t, 0, nil, sudo, fake, "parent", fmt.Sprint(port))
	eventually(t, "listens", func() bool { return listens(port) })
	s := open(t, Spec{Start: []string{fake, "broken"}, Port: port})
	defer s.Close()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listens again", func() bool { return listens(port) })
}
