// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

// A ledger lists what this connection has loaded: objects and sessions. The
// kernel's resource manager flushes them when a program ends, however it ends; an
// emulator's socket and /dev/tpm0 do not. A nil ledger keeps no book.
//
// On a unix socket the list is also in the file that locks it. A program that is
// killed leaves it there for the next one of ours, which flushes. What remains is
// the command that was under way: nobody learned the handle that it gave.
type ledger struct {
	handles []tpm2.TPMHandle
	device  string // which TPM it is of, as deviceID says
	path    string // of the list; empty where it is in memory alone
}

// openLedger begins the list of a device that was opened, and gives what a killed
// program had on it.
func openLedger(device string) (l *ledger, left []tpm2.TPMHandle) {
	if strings.HasPrefix(device, "/dev/tpmrm") {
		return nil, nil
	}
	l = &ledger{}
	if socket, ok := strings.CutPrefix(device, "unix:"); ok {
		l.device, l.path = deviceID(socket), lockPath(socket)
		left = l.read()
		l.handles = slices.Clone(left)
	}
	return l, left
}

// deviceID tells the TPM that listens now from the one that listened here before
// the emulator was started again: that one's handles are gone with it.
func deviceID(socket string) string {
	var stat unix.Stat_t
	if err := unix.Stat(socket, &stat); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d.%09d", stat.Dev, stat.Ino, stat.Ctim.Sec, stat.Ctim.Nsec)
}

// open opens the list if it is a file with one name. Whoever may write the socket's
// folder could put a pipe there, which is waited for, or a second name of a file
// that is not theirs.
func (l *ledger) open(access int) (*os.File, error) {
	file, err := os.OpenFile(l.path, access|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !plain(info) {
		err = fmt.Errorf("%s is not a file with one name", l.path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func plain(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && stat.Nlink == 1
}

// maxLedger bounds the file: a TPM has some three objects and three sessions.
const maxLedger = 1 << 10

// read gives the handles on the list, if it is of this TPM.
func (l *ledger) read() (handles []tpm2.TPMHandle) {
	file, err := l.open(os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxLedger))
	words := strings.Fields(string(text))
	if err != nil || len(words) == 0 || words[0] != l.device {
		return nil
	}
	for _, word := range words[1:] {
		if handle, err := strconv.ParseUint(word, 16, 32); err == nil && loadable(tpm2.TPMHandle(handle)) {
			handles = append(handles, tpm2.TPMHandle(handle))
		}
	}
	return handles
}

// write keeps the list. It is not synced: a power cut empties the TPM as well. A
// disk that is full costs no more than the help of the next program.
func (l *ledger) write() {
	if l.path == "" {
		return
	}
	text := []byte(l.device + "\n")
	for _, handle := range l.handles {
		text = fmt.Appendf(text, "%08x\n", uint32(handle))
	}
	file, err := l.open(os.O_WRONLY)
	if err != nil {
		return
	}
	if _, err = file.WriteAt(text, 0); err == nil {
		_ = file.Truncate(int64(len(text)))
	}
	_ = file.Close()
}

// list gives what is loaded, what was loaded last first.
func (l *ledger) list() []tpm2.TPMHandle {
	handles := slices.Clone(l.handles)
	slices.Reverse(handles)
	return handles
}

// note learns from a command and its response what is loaded now.
func (l *ledger) note(command, response []byte) {
	if l == nil || len(command) < headerSize || binary.BigEndian.Uint32(response[6:headerSize]) != uint32(tpm2.TPMRCSuccess) {
		return
	}
	before := slices.Clone(l.handles)
	switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:headerSize])) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCCreateLoaded, tpm2.TPMCCLoad, tpm2.TPMCCStartAuthSession:
		l.handles = append(l.handles, handleAt(response)...)
	case tpm2.TPMCCFlushContext:
		l.strike(handleAt(command)...)
	}
	l.strike(endedSessions(command)...)
	if !slices.Equal(before, l.handles) {
		l.write()
	}
}

// settle takes handles off the list.
func (l *ledger) settle(gone []tpm2.TPMHandle) {
	if len(gone) == 0 {
		return
	}
	l.strike(gone...)
	l.write()
}

func (l *ledger) strike(gone ...tpm2.TPMHandle) {
	l.handles = slices.DeleteFunc(l.handles, func(handle tpm2.TPMHandle) bool { return slices.Contains(gone, handle) })
}

// handleAt is the handle after the header of a command or response, where one is
// that can be flushed.
func handleAt(buffer []byte) []tpm2.TPMHandle {
	if len(buffer) < headerSize+4 {
		return nil
	}
	handle := tpm2.TPMHandle(binary.BigEndian.Uint32(buffer[headerSize:]))
	if !loadable(handle) {
		return nil
	}
	return []tpm2.TPMHandle{handle}
}

// loadable says whether a handle is one that FlushContext takes: of a transient
// object or a session (TPM 2.0 part 2, section 7.2).
func loadable(handle tpm2.TPMHandle) bool {
	switch tpm2.TPMHT(handle >> 24) {
	case tpm2.TPMHTTransient, tpm2.TPMHTHMACSession, tpm2.TPMHTPolicySession:
		return true
	}
	return false
}

// endedSessions lists the sessions in a command's authorisation area that do not
// go on after it, by their attribute continueSession (TPM 2.0 part 1, section 18,
// and part 2, section 8.4).
func endedSessions(command []byte) (ended []tpm2.TPMHandle) {
	const withSessions, goesOn = 0x8002, 1
	if binary.BigEndian.Uint16(command) != withSessions {
		return nil
	}
	for area := bytes.NewBuffer(authorisations(command)); area.Len() >= 9; {
		handle := tpm2.TPMHandle(binary.BigEndian.Uint32(area.Next(4)))
		area.Next(length(area)) // nonce
		attributes := area.Next(1)
		area.Next(length(area)) // HMAC or password
		if loadable(handle) && len(attributes) == 1 && attributes[0]&goesOn == 0 {
			ended = append(ended, handle)
		}
	}
	return ended
}

// length takes the size in front of a TPM2B.
func length(buffer *bytes.Buffer) int {
	size := buffer.Next(2)
	if len(size) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(size))
}

// authorisations finds the authorisation area of a command with sessions: its size
// comes after at most three handles, each of which is a larger number than any
// size.
func authorisations(command []byte) []byte {
	for rest := command[headerSize:]; len(rest) >= 4; rest = rest[4:] {
		size := binary.BigEndian.Uint32(rest)
		if uint64(size) <= uint64(len(rest)-4) {
			return rest[4 : 4+size]
		}
	}
	return nil
}

// sweep flushes what a killed program had loaded. What is not there any more
// somebody else has flushed.
func (t *TPM) sweep(ctx context.Context, left []tpm2.TPMHandle) error {
	for _, handle := range left {
		_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(t.in(ctx))
		if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
			return fmt.Errorf("flush 0x%08x, which a killed program left: %w", uint32(handle), err)
		}
	}
	t.link.ledger.settle(left)
	return nil
}
