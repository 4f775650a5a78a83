// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// maxResponse bounds a response; the largest a PC Client TPM sends is 4096
// bytes (TPM_PT_MAX_RESPONSE_SIZE).
const maxResponse = 4096

// A link carries framed commands over one connection, one at a time.
type link struct {
	connection io.ReadWriteCloser
	reader     *bufio.Reader
	timeout    time.Duration
	observe    func(command string)
	ledger     *ledger // nil where a resource manager keeps book

	turn   chan struct{} // holds one token: whose turn it is to send
	closed sync.Once
	broken error // set, with the turn held, when the framing is lost
}

func newLink(connection io.ReadWriteCloser, timeout time.Duration, observe func(string), ledger *ledger) *link {
	if observe == nil {
		observe = func(string) {}
	}
	l := &link{
		connection: connection,
		// One read must take the whole response: some kernels drop what a short
		// read of a device node leaves behind.
		reader:  bufio.NewReaderSize(connection, maxResponse),
		timeout: timeout,
		observe: observe,
		ledger:  ledger,
		turn:    make(chan struct{}, 1),
	}
	l.turn <- struct{}{}
	return l
}

// Close ends the connection, also under a command that hangs.
func (l *link) Close() (err error) {
	l.closed.Do(func() { err = l.connection.Close() })
	return err
}

// retries bounds how often a TPM may say "not now"; with the pauses below it
// has some five seconds to get ready.
const retries = 16

// leftovers lists what is loaded and can still be flushed.
func (l *link) leftovers() []tpm2.TPMHandle {
	select {
	case <-l.turn:
	default:
		return nil // a command hangs
	}
	defer func() { l.turn <- struct{}{} }()
	if l.broken != nil || l.ledger == nil {
		return nil
	}
	return l.ledger.list()
}

// send runs one command, again where the TPM says that it was not started.
func (l *link) send(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-l.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { l.turn <- struct{}{} }()
	pause := time.Millisecond
	for range retries {
		response, err := l.exchange(ctx, command)
		if err != nil {
			return nil, err
		}
		if !notNow(response) {
			l.ledger.note(command, response)
			return response, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause = min(2*pause, time.Second/2)
	}
	return nil, fmt.Errorf("%w: it put the command off %d times", ErrBusy, retries)
}

// notNow says whether the TPM did not start the command and wants it sent
// again (TPM 2.0 part 2, section 6.6.3).
func notNow(response []byte) bool {
	switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:headerSize])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
		return true
	}
	return false
}

// grace is how long a command that was begun is waited for after its context has
// ended. Without its answer nobody knows what it left in the TPM.
const grace = 5 * time.Second

// A reply is how a command ended.
type reply struct {
	response []byte
	err      error
}

// exchange writes a command and reads its response. Whatever goes wrong on the
// way leaves an answer pending or half read, so the link is of no use after it.
func (l *link) exchange(ctx context.Context, command []byte) ([]byte, error) {
	if l.broken != nil {
		return nil, l.broken
	}
	l.observe(CommandName(command))
	done := make(chan reply, 1)
	// A device node blocks in the kernel until the command ends and has no
	// deadline; the wait for it must be given up from outside.
	go func() {
		response, err := l.roundTrip(command)
		done <- reply{response, err}
	}()
	r, answered := await(ctx, done, l.timeout)
	if !answered && ctx.Err() != nil && l.ledger != nil {
		r, answered = await(context.WithoutCancel(ctx), done, min(grace, l.timeout))
	}
	if answered {
		l.broken = r.err
		return r.response, r.err
	}
	cause := fmt.Errorf("%s has taken %s", CommandName(command), l.timeout)
	if err := ctx.Err(); err != nil {
		cause = err
	}
	l.broken = fmt.Errorf("%w: %w", ErrNoAnswer, cause)
	return nil, errors.Join(l.broken, l.Close())
}

func await(ctx context.Context, done <-chan reply, patience time.Duration) (reply, bool) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-done:
		return r, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return reply{}, false
}

func (l *link) roundTrip(command []byte) ([]byte, error) {
	if _, err := l.connection.Write(command); err != nil {
		return nil, fmt.Errorf("%w: send command: %w", ErrNoAnswer, err)
	}
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(l.reader, header); err != nil {
		return nil, fmt.Errorf("%w: read response: %w", ErrNoAnswer, err)
	}
	size := binary.BigEndian.Uint32(header[2:6])
	if size < headerSize || size > maxResponse {
		return nil, fmt.Errorf("read response: its header claims %d bytes", size)
	}
	response := append(header, make([]byte, size-headerSize)...)
	if _, err := io.ReadFull(l.reader, response[headerSize:]); err != nil {
		return nil, fmt.Errorf("%w: read response: %w", ErrNoAnswer, err)
	}
	return response, nil
}

// bound is a link with the context of one operation: what go-tpm takes as a
// transport.
type bound struct {
	ctx  context.Context // here because go-tpm's interface has no place for it
	link *link
}

// Send implements transport.TPM. The first command heeds the context. What go-tpm
// sends after it, it sends for its sake: the command that a session was started
// for, which ends it, or the flush of a session that was of no use. They are cut
// short by the timeout of a command alone.
func (b *bound) Send(command []byte) ([]byte, error) {
	response, err := b.link.send(b.ctx, command)
	b.ctx = context.WithoutCancel(b.ctx)
	return response, err
}

// in binds the TPM to ctx for one operation.
func (t *TPM) in(ctx context.Context) *bound { return &bound{ctx, t.link} }

// cleanup is in for what must be done even when ctx is over: flushing. The
// timeout of a command still holds.
func (t *TPM) cleanup(ctx context.Context) *bound { return t.in(context.WithoutCancel(ctx)) }
