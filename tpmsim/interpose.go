// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// Interpose puts answer between the device and whatever opens the device name that
// is returned, for the length of a test: it hears every command and gives the
// response, or nil to have the device give it. It may talk to the device itself. One
// command is answered at a time.
func (t *TPM) Interpose(tb testing.TB, answer func(command []byte) []byte) (device string) {
	tb.Helper()
	path := filepath.Join(directory(tb), "tpm")
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "unix", path)
	fatalOnError(tb, err)
	i := &interposer{device: t, answer: answer}
	served := make(chan struct{})
	go func() {
		defer close(served)
		i.serve(listener)
	}()
	tb.Cleanup(func() {
		_ = listener.Close()
		<-served
	})
	return "unix:" + path
}

// Refusal is the response of a TPM that refuses with a response code (TPM 2.0 part
// 2, section 6.6.3).
func Refusal(code uint32) []byte {
	response := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(response[6:], code)
	return response
}

type interposer struct {
	device *TPM
	answer func([]byte) []byte
	mu     sync.Mutex
}

// serve takes connections until the listener is closed, and ends when they have.
func (i *interposer) serve(listener net.Listener) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		group.Go(func() {
			for i.pass(connection) == nil {
			}
			_ = connection.Close()
		})
	}
}

// pass answers one command.
func (i *interposer) pass(connection net.Conn) error {
	header := make([]byte, 10)
	if _, err := io.ReadFull(connection, header); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(header[2:6])
	if size < 10 || size > 4096 {
		return fmt.Errorf("a command of %d bytes", size)
	}
	command := append(header, make([]byte, size-10)...)
	if _, err := io.ReadFull(connection, command[10:]); err != nil {
		return err
	}
	response, err := i.respond(command)
	if err == nil {
		_, err = connection.Write(response)
	}
	return err
}

func (i *interposer) respond(command []byte) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if response := i.answer(command); response != nil {
		return response, nil
	}
	return i.device.Send(command)
}
