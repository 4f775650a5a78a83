// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// A script answers each command of one connection in turn: the bytes to send,
// in as many writes as there are slices. An empty script answers nothing.
type script [][][]byte

func (s script) serve(connection io.ReadWriter) {
	command := make([]byte, 4096)
	for _, answer := range s {
		if _, err := connection.Read(command); err != nil {
			return
		}
		for _, piece := range answer {
			if _, err := connection.Write(piece); err != nil {
				return
			}
		}
	}
}

// listen serves the script on a unix socket and returns its device name.
func listen(t *testing.T, s script, hold <-chan struct{}) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tpm")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		s.serve(connection)
		if hold != nil {
			<-hold
		}
		_ = connection.Close()
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return "unix:" + path
}

// response is a response header with a code and a body.
func response(code uint32, body ...byte) []byte {
	r := binary.BigEndian.AppendUint16(nil, 0x8001)
	r = binary.BigEndian.AppendUint32(r, uint32(10+len(body)))
	return append(binary.BigEndian.AppendUint32(r, code), body...)
}

// clock is a TPM2_ReadClock response of a TPM with resetCount 7, preceded by
// the properties that are asked for first.
func clock() []byte {
	body := make([]byte, 8+8+4+4+1)
	body[19] = 7
	return response(0, body...)
}

func properties() []byte {
	return response(0, 0, 0, 0, 0, 6, 0, 0, 0, 0)
}

func properly(pieces ...[]byte) [][]byte { return pieces }

func TestLink(t *testing.T) {
	again := properly(response(0x922))
	one := func(b []byte) (pieces [][]byte) {
		for i := range b {
			pieces = append(pieces, b[i:i+1])
		}
		return pieces
	}
	tests := []struct {
		name string
		s    script
		want string // "" is success
	}{
		{"at once", script{properly(properties()), properly(clock())}, ""},
		{"byte by byte", script{one(properties()), one(clock())}, ""},
		{"three times not now", script{again, again, again, properly(properties()), properly(response(0x908)), properly(clock())}, ""},
		{"an error", script{properly(response(0x101))}, "read TPM properties"},
		{"hangs up", script{properly()}, "EOF"},
		{"hangs up in the middle", script{properly(properties()[:12])}, "EOF"},
		{"claims too little", script{properly([]byte{0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0})}, "claims 9 bytes"},
		{"claims too much", script{properly([]byte{0x80, 1, 0, 0, 0x10, 1, 0, 0, 0, 0})}, "claims 4097 bytes"},
		{"claims very much", script{properly([]byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})}, "claims 4294967295 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			opened, err := tpm.Open(t.Context(), tpm.Config{Device: listen(t, test.s, nil)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = opened.Close() }()
			got, err := opened.Properties(t.Context())
			switch {
			case test.want == "" && (err != nil || got.ResetCount != 7):
				t.Errorf("properties %+v, error %v", got, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error is %v, want %q in it", err, test.want)
			case test.want == "EOF" && !errors.Is(err, tpm.ErrNoAnswer):
				t.Errorf("a TPM that went away is no TPM that does not answer: %v", err)
			}
		})
	}
}

func TestEndlessRetryIsBusy(t *testing.T) {
	t.Parallel()
	s := make(script, 100)
	for i := range s {
		s[i] = properly(response(0x922))
	}
	opened, err := tpm.Open(t.Context(), tpm.Config{Device: listen(t, s, nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := opened.Properties(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	if _, err := opened.Properties(t.Context()); !errors.Is(err, tpm.ErrBusy) {
		t.Errorf("without one: %v", err)
	}
}

func TestSilentTPM(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	opened, err := tpm.Open(t.Context(), tpm.Config{
		Device: listen(t, script{properly()}, hold), Timeout: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time at once: the link is broken
		_, err := opened.Properties(t.Context())
		if !errors.Is(err, tpm.ErrNoAnswer) || !strings.Contains(err.Error(), "GetCapability has taken 50ms") {
			t.Errorf("error is %v", err)
		}
	}
	if err := opened.Close(); err != nil {
		t.Errorf("close after it: %v", err)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	opened, err := tpm.Open(t.Context(), tpm.Config{Device: listen(t, script{properly()}, hold), Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := opened.Properties(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

func TestFrozenTPM(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, _ := open(t, sim, func(c *tpm.Config) { c.Timeout = 50 * time.Millisecond })
	if err := sim.Freeze(); err != nil {
		t.Fatal(err)
	}
	_, err := opened.Properties(t.Context())
	if !errors.Is(err, tpm.ErrNoAnswer) {
		t.Errorf("error is %v", err)
	}
	if err := sim.Thaw(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProgramIsTold(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, _ := open(t, sim)
	config := tpm.Config{Device: sim.Device(), LockWait: 30 * time.Millisecond}
	if _, err := tpm.Open(t.Context(), config); !errors.Is(err, tpm.ErrBusy) {
		t.Errorf("a second program got in: %v", err)
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatalf("after the first had closed: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestAbsentTPM(t *testing.T) {
	sim := tpmsim.Start(t)
	device := sim.Device()
	if err := sim.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{device, "/dev/no-such-tpm", "tcp:127.0.0.1:1"} {
		if _, err := tpm.Open(t.Context(), tpm.Config{Device: device}); !errors.Is(err, tpm.ErrAbsent) {
			t.Errorf("%s: %v", device, err)
		}
	}
	if err := os.Remove(filepath.Join(os.TempDir(), "omen-tpm-127.0.0.1:1.lock")); err != nil {
		t.Error(err)
	}
}

func TestTPMGoesAway(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, _ := open(t, sim)
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Properties(t.Context()); err == nil {
		t.Error("a closed connection answers")
	}
}

func TestCheckDevice(t *testing.T) {
	for _, good := range []string{"/dev/tpmrm0", "/dev/tpm0", "unix:/run/tpm", "tcp:127.0.0.1:2321", "tcp:[::1]:2321"} {
		if err := tpm.CheckDevice(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "tpmrm0", "/etc/passwd", "unix:relative", "tcp:nowhere", "mssim:host=1", "exec:/bin/sh"} {
		if err := tpm.CheckDevice(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if _, err := tpm.Open(t.Context(), tpm.Config{Device: bad}); bad != "" && err == nil {
			t.Errorf("%q was opened", bad)
		}
	}
}

func TestTCP(t *testing.T) {
	opened, _ := openRelayed(t, tpmsim.Start(t))
	if _, err := opened.Properties(t.Context()); err != nil {
		t.Error(err)
	}
}

// openRelayed opens sim over TCP. What the TPM answers is written to the
// buffer, which is complete once end was called.
func openRelayed(t *testing.T, sim *tpmsim.TPM) (opened *tpm.TPM, end func() []byte) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	var seen bytes.Buffer
	done := make(chan struct{})
	go relay(t, listener, sim.Socket(), &seen, done)
	if opened, err = tpm.Open(t.Context(), tpm.Config{Device: "tcp:" + address}); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceValue(func() []byte {
		if err := errors.Join(opened.Close(), listener.Close()); err != nil {
			t.Error(err)
		}
		<-done
		if err := os.Remove(filepath.Join(os.TempDir(), "omen-tpm-"+address+".lock")); err != nil {
			t.Error(err)
		}
		return seen.Bytes()
	})
	t.Cleanup(func() { end() })
	return opened, end
}

// relay passes one TCP connection on to a unix socket and writes down what
// comes back.
func relay(t *testing.T, listener net.Listener, socket string, seen io.Writer, done chan<- struct{}) {
	defer close(done)
	from, err := listener.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	to, err := net.Dial("unix", socket)
	if err != nil {
		t.Error(err)
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(from, io.TeeReader(to, seen))
	}()
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
	<-back
}

// TestDeviceNode stands a terminal in for a TPM's device node: a character
// device whose reads block in the kernel and have no deadline.
func TestDeviceNode(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	for _, test := range []struct {
		name string
		s    script
		want error
	}{
		{"answers", script{properly(properties()), properly(clock())}, nil},
		{"is silent", script{properly(properties()), properly()}, tpm.ErrNoAnswer},
	} {
		t.Run(test.name, func(t *testing.T) {
			master, path := terminal(t)
			go test.s.serve(master)
			opened, err := tpm.Open(t.Context(), tpm.Config{Device: path, Timeout: 500 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := opened.Properties(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("error is %v", err)
			}
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// terminal makes a pseudo-terminal that passes bytes on unchanged, and returns
// its master side and the path of the other.
func terminal(t *testing.T) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	settings.Iflag, settings.Oflag, settings.Lflag = 0, 0, 0
	settings.Cc[unix.VMIN], settings.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, settings); err != nil {
		t.Fatal(err)
	}
	return master, fmt.Sprintf("/dev/pts/%d", number)
}
