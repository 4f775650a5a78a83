// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"funlab.casa/omen/internal/tpm"
)

// commandTimeout bounds one command, the wait for another client included.
const commandTimeout = 10 * time.Second

// Send runs one raw command on a connection of its own.
func (t *TPM) Send(command []byte) ([]byte, error) {
	// swtpm answers TPM_RC_RETRY to the first use of a protected object after a
	// boot; the second try is served.
	for range 10 {
		response, err := exchange(t.Socket(), command, readResponse)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tpm.CommandName(command), err)
		}
		if code := binary.BigEndian.Uint32(response[6:10]); code != uint32(tpm2.TPMRCRetry) {
			return response, nil
		}
	}
	return nil, fmt.Errorf("%s: put off ten times", tpm.CommandName(command))
}

func exchange(socket string, request []byte, read func(net.Conn) ([]byte, error)) (response []byte, err error) {
	connection, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	if err := connection.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return nil, err
	}
	if _, err := connection.Write(request); err != nil {
		return nil, err
	}
	return read(connection)
}

// dial tries again while swtpm's queue is full (EAGAIN): connections that were
// closed stay in it until swtpm looks.
func dial(socket string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		connection, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if !errors.Is(err, syscall.EAGAIN) {
			return connection, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func readResponse(connection net.Conn) ([]byte, error) {
	header := make([]byte, 10)
	if _, err := readFull(connection, header); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[2:6])
	if size < 10 || size > 4096 {
		return nil, fmt.Errorf("a response of %d bytes", size)
	}
	response := append(header, make([]byte, size-10)...)
	_, err := readFull(connection, response[10:])
	return response, err
}

func readFull(connection net.Conn, buffer []byte) (int, error) {
	n, err := io.ReadFull(connection, buffer)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return n, fmt.Errorf("no answer in %s (frozen, or held by another connection): %w", commandTimeout, err)
	}
	return n, err
}

// A Counter is a transport that counts the commands it passes on. It is safe
// for concurrent use when what it wraps is.
type Counter struct {
	wrapped transport.TPM
	mu      sync.Mutex
	counts  map[string]int
}

// NewCounter counts what goes to wrapped, which may be nil if only Count is
// used.
func NewCounter(wrapped transport.TPM) *Counter {
	return &Counter{wrapped: wrapped, counts: map[string]int{}}
}

// Count counts one command by its name; it fits a hook that hears of commands
// sent elsewhere.
func (c *Counter) Count(command string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[command]++
}

// Send counts the command and passes it on.
func (c *Counter) Send(command []byte) ([]byte, error) {
	c.Count(tpm.CommandName(command))
	return c.wrapped.Send(command)
}

// Close closes what is wrapped, if it can be closed.
func (c *Counter) Close() error {
	if closer, ok := c.wrapped.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// Counts is how often each command was sent, by its name in TPM 2.0 part 2:
// "Quote", "NV_Read".
func (c *Counter) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Total is the number of commands sent.
func (c *Counter) Total() int {
	total := 0
	for _, count := range c.Counts() {
		total += count
	}
	return total
}

// Reset starts counting anew.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.counts)
}
