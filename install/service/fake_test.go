// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary a service when it is started as one: by a link
// with the name of the service, so that process lists show that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == program && len(os.Args) > 1 {
		fake(os.Args[1], os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// program is the name of the fake service.
const program = "keylime_fake"

// fake plays the parts of Keylime's verifier that were measured.
func fake(part string, args []string) {
	switch part {
	case "parent": // ignores TERM while its worker lives
		signal.Ignore(syscall.SIGTERM)
		report()
		worker := spawn("worker", args[0])
		spawn("stubborn")
		must(worker.Wait())
	case "worker", "at": // listens, ends on TERM, lives on when its parent dies
		address := args[0]
		if part == "worker" {
			address = "127.0.0.1:" + address
		}
		listener, err := net.Listen("tcp", address)
		must(err)
		for {
			if conn, err := listener.Accept(); err == nil {
				conn.Close()
			}
		}
	case "stubborn": // the shared-memory manager
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		select {}
	case "broken":
		fmt.Println("cannot read the key")
		os.Exit(3)
	}
}

func report() {
	groups, err := os.Getgroups()
	must(err)
	fmt.Println("uid", os.Getuid(), "gid", os.Getgid(), "groups", groups, "environment", len(os.Environ()), "part", os.Args[1])
}

func spawn(args ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], args...)
	must(command.Start())
	return command
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// linkProgram puts the fake where every user can run it.
func linkProgram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "omen-service-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, program)
	copyFile(t, "/proc/self/exe", path)
	return path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(target, source); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

// byHand starts a program as a person in a shell does: in our session and group.
func byHand(t *testing.T, log string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(args[0], args[1:]...)
	if log != "" {
		file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		command.Stdout, command.Stderr = file, file
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = command.Wait() }() // reaped whenever it ends
	return command
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		case <-ticker.C:
		}
	}
}

func listens(port int) bool {
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// alive lists the living processes of the fake service.
func alive(t *testing.T) map[int]process {
	t.Helper()
	all, err := allProcesses()
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]process{}
	for _, p := range all {
		if p.names(program) && !p.gone() {
			found[p.pid] = p
		}
	}
	return found
}
