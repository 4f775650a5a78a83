// SPDX-License-Identifier: Apache-2.0

//go:build long

package soak_test

import (
	"context"
	"syscall"
	"time"
)

// A fault comes in the midst of a renewal, and goes again before it ends or after.
type fault struct {
	name   string
	strike func(ctx context.Context) error
	mend   func(ctx context.Context) error
	lasts  time.Duration
}

// pick is no fault in half of all cases.
func (l *life) pick() fault {
	if l.random.IntN(2) == 0 {
		return fault{name: "none"}
	}
	f := l.faults[l.random.IntN(len(l.faults))]
	f.lasts = time.Duration(l.random.IntN(1500)) * time.Millisecond
	return f
}

// strike waits a moment, and lets the fault last for another.
func (l *life) strike(ctx context.Context, f fault) error {
	if f.strike == nil {
		return nil
	}
	pause(ctx, time.Duration(l.random.IntN(150))*time.Millisecond)
	if err := f.strike(ctx); err != nil || f.mend == nil {
		return err
	}
	pause(ctx, f.lasts)
	return f.mend(ctx)
}

// pause lets a fault come at a moment by chance, and last: nothing is waited for.
func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

func (l *life) allFaults() []fault {
	bao, tpm := l.story.World.Bao, l.host.TPM
	signalBao := func(s syscall.Signal) func(context.Context) error {
		return func(context.Context) error { return bao.Process.Signal(s) }
	}
	here := func(script string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := l.host.Must(ctx, "sh", "-c", script)
			return err
		}
	}
	return []fault{
		{name: "OpenBao killed", mend: bao.Start, strike: func(context.Context) error {
			if err := bao.Process.Signal(syscall.SIGKILL); err != nil {
				return err
			}
			<-bao.Process.Ended()
			return nil
		}},
		{name: "OpenBao silent", strike: signalBao(syscall.SIGSTOP), mend: signalBao(syscall.SIGCONT)},
		{name: "TPM silent", strike: func(context.Context) error { return tpm.Freeze() }, mend: func(context.Context) error { return tpm.Thaw() }},
		{name: "TPM reset", strike: func(context.Context) error { return tpm.Reboot() }},
		{
			name:   "disk full",
			strike: here("dd if=/dev/zero of=" + stateDir + "/fill bs=64k 2>/dev/null; test -s " + stateDir + "/fill"),
			mend:   here("rm " + stateDir + "/fill"),
		},
		{name: "disk read-only", strike: here("mount -o remount,ro " + stateDir + " || true"), mend: here("mount -o remount,rw " + stateDir)},
		{name: "service killed", strike: here("pkill -KILL -x keylime_agent || true")},
		{name: "state removed", strike: here("rm -rf " + stateDir + "/state")},
	}
}
