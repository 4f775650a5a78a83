// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The program starts itself again for each part it plays; these two variables
// say which part, and where the world's files are.
const (
	stageVariable = "OMEN_WORLD_STAGE"
	dirVariable   = "OMEN_WORLD_DIR"
)

const (
	stageInit   = "init"   // process 1 of the world: waits for everybody
	stageWorker = "worker" // the program itself, inside
	stageHost   = "host"   // process 1 of one host
)

// ErrNotRoot says that namespaces need root.
var ErrNotRoot = errors.New("this needs root, to make private namespaces: try sudo")

// place is where the worker finds itself: the world's directory, and the
// process ID by which the machine outside knows the world's process 1.
type place struct {
	dir      string
	outerPid int
}

// Enter is the first call of a program (main, or TestMain) that uses this
// package. Outside it starts the program again inside a world, waits, and
// returns that run's exit code and true: the caller exits with it. Inside it
// returns false, and the program goes on.
func Enter() (code int, done bool) {
	switch os.Getenv(stageVariable) {
	case "":
		return report(enterNamespaces()), true
	case stageInit:
		return report(initWorld()), true
	case stageHost:
		return report(0, runHost()), true
	default:
		return 0, false
	}
}

// Main is main, or TestMain, of a program that does all it does in a world.
func Main(play func() int) {
	code, done := Enter()
	if !done {
		code = play()
	}
	os.Exit(code)
}

func report(code int, err error) int {
	if err == nil {
		return code
	}
	fmt.Fprintf(os.Stderr, "world: error: %v\n", err)
	return 1
}

// enterNamespaces runs outside. The thread is locked because the child dies
// with the thread that made it.
func enterNamespaces() (int, error) {
	if os.Geteuid() != 0 {
		return 1, ErrNotRoot
	}
	runtime.LockOSThread()
	dir, err := os.MkdirTemp("/tmp", "omen-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.Remove(dir) }() // empty: the files are in memory, inside
	read, write, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	cmd := again(stageInit, dir)
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("make namespaces: %w", err)
	}
	stop := passSignals(cmd.Process)
	defer stop()
	_, err = fmt.Fprintf(write, "%d\n", cmd.Process.Pid)
	_, _ = write.Close(), read.Close()
	return exitCode(cmd.Wait()), err
}

// again is this program with the same arguments in another part.
func again(stage, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, stageVariable+"=") && !strings.HasPrefix(entry, "TMPDIR=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, stageVariable+"="+stage, dirVariable+"="+dir)
	return cmd
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	default:
		return 1
	}
}

// passSignals hands an interrupt on, so that the worker can end in its own way.
func passSignals(to *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for range signals {
			_ = to.Signal(syscall.SIGTERM)
		}
	}()
	return func() { signal.Stop(signals); close(signals) }
}

// initWorld is process 1 of the world: it lays the ground, starts the worker
// and collects every process that lost its parent. When it returns, the kernel
// ends whatever still runs.
func initWorld() (int, error) {
	outer, err := io.ReadAll(os.NewFile(3, "pid"))
	if err != nil {
		return 1, err
	}
	dir := os.Getenv(dirVariable)
	if err := layGround(dir); err != nil {
		return 1, err
	}
	cmd := again(stageWorker, dir)
	cmd.Env = append(cmd.Env, "TMPDIR="+filepath.Join(dir, "tmp"), "OMEN_WORLD_PID="+strings.TrimSpace(string(outer)))
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	stop := passSignals(cmd.Process)
	defer stop()
	for range children {
		if status, ended := collect(cmd.Process.Pid); ended {
			return status, nil
		}
	}
	return 1, nil
}

// collect waits for every process that has ended, and says whether the one
// with this ID was among them. 0 watches for none.
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
				code = 128 + int(status.Signal())
			}
		}
	}
}

// here reads what initWorld told the worker.
func here() (place, error) {
	if os.Getenv(stageVariable) != stageWorker {
		return place{}, errors.New("no world around this program: call world.Enter first")
	}
	pid, err := strconv.Atoi(os.Getenv("OMEN_WORLD_PID"))
	return place{dir: os.Getenv(dirVariable), outerPid: pid}, err
}
