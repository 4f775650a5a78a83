// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// notes is where parts and tests leave word for each other.
const notes = "/run/omen-test"

// parts are what this binary is under other names. Units of the tests start them by a
// path from part.
var parts = map[string]func([]string) error{
	"fail-once":  failOnce,
	"fail-until": failUntil,
	"hang-once":  hangOnce,
	"witness":    func([]string) error { return leave("witnessing") },
	"witnessing": witness,
	"stubborn":   func([]string) error { return leave("deaf") },
	"deaf":       deaf,
}

// part is the path of a part inside.
func part(name string) string { return filepath.Join(filepath.Dir(program), name) }

// flag is the file that makes fail-once and hang-once do it, and fail-until not.
var flag = filepath.Join(notes, "flag")

// taken reports whether the flag was up, and takes it down.
func taken() bool { return os.Remove(flag) == nil }

// failOnce ends with an error when the flag is up; else it becomes the command
// that it was given, if any.
func failOnce(command []string) error {
	if taken() {
		return errors.New("this start fails")
	}
	if len(command) == 0 {
		return nil
	}
	return syscall.Exec(command[0], command, os.Environ())
}

// failUntil ends with an error until the flag is up; then it becomes the command that it
// was given.
func failUntil(command []string) error {
	if _, err := os.Stat(flag); err != nil {
		return errors.New("this start fails")
	}
	return syscall.Exec(command[0], command, os.Environ())
}

// hangOnce waits for a signal when the flag is up.
func hangOnce([]string) error {
	if taken() {
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		<-ended
	}
	return nil
}

// leave leaves a process in the unit's control group that is no child of its
// main process, and returns when that listens to signals.
func leave(name string) error {
	child := exec.Command(part(name))
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return child.Process.Release()
}

// deaf does not hear TERM.
func deaf([]string) error {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("here")
	select {}
}

// witnessed is what the witness writes: every signal, until TERM.
var witnessed = filepath.Join(notes, "witness")

func witness([]string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM)
	file, err := os.OpenFile(witnessed, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	fmt.Println("here")
	for s := range signals {
		if _, err := fmt.Fprintln(file, s); err != nil || s == syscall.SIGTERM {
			return errors.Join(err, file.Close())
		}
	}
	return nil
}
