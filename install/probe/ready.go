// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
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
