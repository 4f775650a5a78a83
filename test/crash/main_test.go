// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// The test binary starts itself again twice: as process 1 of new namespaces,
// which collects every service that outlives its installer, and below it as the
// tests themselves.
const (
	stageKey = "OMEN_TEST_CRASH"     // "init" or "tests"
	spaceKey = "OMEN_TEST_CRASH_DIR" // the folder that is a file system in memory inside
)

func TestMain(m *testing.M) {
	switch os.Getenv(stageKey) {
	case "":
		os.Exit(outside())
	case "init":
		os.Exit(initialise())
	default:
		os.Exit(m.Run())
	}
}

func outside() int {
	if os.Geteuid() != 0 {
		return complain(errors.New("these tests need root, for namespaces of their own: sudo make test"))
	}
	if _, err := exec.LookPath("strace"); err != nil {
		return complain(errors.New("strace is missing: apt-get install --no-install-recommends strace"))
	}
	space, err := os.MkdirTemp("/tmp", "omen-crash-")
	if err != nil {
		return complain(err)
	}
	defer os.Remove(space)
	command := again("init", space)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := command.Run(); err != nil {
		return complain(err)
	}
	return 0
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "test/crash:", err)
	return 1
}

func again(stage, space string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Args[0] = os.Args[0]
	command.Env = append(os.Environ(), stageKey+"="+stage, spaceKey+"="+space)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command
}

// initialise is process 1.
func initialise() int {
	space := os.Getenv(spaceKey)
	err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("proc", "/proc", "proc", 0, ""),
		syscall.Mount("tmpfs", space, "tmpfs", 0, "mode=0755,size=4g"),
		exec.Command("ip", "link", "set", "lo", "up").Run(),
		buildOnce(space),
	)
	if err != nil {
		return complain(err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	command := again("tests", space)
	if err := command.Start(); err != nil {
		return complain(err)
	}
	for range children {
		if code, ended := collect(command.Process.Pid); ended {
			return code
		}
	}
	return 1
}

// buildOnce builds the program without the race detector: it runs thousands of
// times, and what is looked at is what it asks of the kernel.
func buildOnce(space string) error {
	programs := filepath.Join(space, "bin")
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(programs, "once"), "./once")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	return errors.Join(
		os.Link(programs+"/once", programs+"/keylime_verifier"),
		os.Link(programs+"/once", programs+"/keylime_registrar"),
	)
}

// collect waits for every process that has ended, and says whether pid was among
// them.
func collect(pid int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || got <= 0 {
			return code, ended
		}
		if got == pid {
			code, ended = status.ExitStatus(), true
			if status.Signaled() {
				code = 1
			}
		}
	}
}
