// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long a tree may take to end by itself, and then to disappear.
const (
	grace     = 10 * time.Second
	afterKill = 5 * time.Second
)

// tree is a set of processes: roots, all that descend from them, and all of the
// sessions that a root leads (workers whose parent has died stay in it).
type tree map[int]process

// grow collects the tree as it is now and keeps what it had.
func (t tree) grow(roots []process) error {
	all, err := allProcesses()
	if err != nil {
		return err
	}
	led := map[int]bool{}
	for _, root := range roots {
		t[root.pid] = root
		led[root.pid] = root.session == root.pid
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if _, in := t[p.pid]; in || protected(p) {
				continue
			}
			if _, child := t[p.parent]; child || led[p.session] {
				t[p.pid] = p
				grown = true
			}
		}
	}
	return nil
}

// protected keeps this process and the init process out of every tree.
func protected(p process) bool { return p.pid == 1 || p.pid == os.Getpid() }

// stop ends a tree: TERM to every member, since a parent of Keylime's alone
// ignores it, and KILL to what is left after the grace.
func stop(ctx context.Context, roots []process) error {
	members := tree{}
	if err := members.grow(roots); err != nil {
		return err
	}
	members.signal(unix.SIGTERM)
	if members.wait(ctx, grace) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stop process %d: %w", roots[0].pid, err)
	}
	if err := members.grow(roots); err != nil { // children born since
		return err
	}
	members.signal(unix.SIGKILL)
	if members.wait(ctx, afterKill) {
		return nil
	}
	return fmt.Errorf("process %d cannot be stopped", roots[0].pid)
}

// signal sends to every member that is still the process it was.
func (t tree) signal(signal unix.Signal) {
	for _, p := range t {
		if fd, ok := p.open(); ok {
			// An error means that it ended in between, which is what is wanted.
			_ = unix.PidfdSendSignal(fd, signal, nil, 0)
			unix.Close(fd)
		}
	}
}

// open returns a descriptor of the process, whose number may belong to another
// by now; false when it is gone. A zombie is not: its other threads may still
// hold the port, and only the descriptor tells when all of them have ended.
func (p process) open() (int, bool) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return -1, false
	}
	now, err := readProcess(p.pid)
	if err != nil || now.start != p.start {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// wait returns true as soon as no member is left, false after the limit or when
// ctx ends.
func (t tree) wait(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, p := range t {
		fd, ok := p.open()
		if !ok {
			continue
		}
		ended := waitFor(ctx, fd)
		unix.Close(fd)
		if !ended {
			return false
		}
	}
	return true
}

// waitFor waits until the process behind a descriptor has ended.
func waitFor(ctx context.Context, fd int) bool {
	const slice = 100 // milliseconds, so that ctx is looked at
	for ctx.Err() == nil {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, slice)
		if ready > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
	return false
}
