// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// pollInterval is how often Ready tries; a refused connection costs nothing.
const pollInterval = 50 * time.Millisecond

// Ready waits until address accepts a connection. It gives up when ctx ends or
// when alive says that the service is gone; alive may be nil.
func Ready(ctx context.Context, address string, alive func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	dialer := net.Dialer{Timeout: time.Second}
	var last error
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() == nil || last == nil { // the end of ctx is no news of the service
			last = err
		}
		if alive != nil {
			if gone := alive(ctx); gone != nil {
				return fmt.Errorf("wait for %s: %w", address, gone)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", address, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// steady is how often in a row a new certificate must be served: beside the new workers
// of a program that reads its files again old ones may answer for a moment (nginx:
// 100 ms).
const steady = 6

// AwaitServed waits until Served holds, and goes on to hold for a moment. It gives up
// when ctx ends, with what was wrong last.
func AwaitServed(ctx context.Context, t Target) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	last := errors.New("not served for long enough")
	for row := 0; ; {
		err := Served(ctx, t)
		switch row++; {
		case err == nil && row == steady:
			return nil
		case err != nil:
			row = 0
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", t.Address, last)
		case <-ticker.C:
		}
	}
}
