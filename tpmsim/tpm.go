// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Options say how a device is switched on. The zero value is right for tests.
type Options struct {
	// Dir is where the socket and the log lie; empty means a new directory in
	// /tmp that Stop removes. Its path must be short: a socket's name has less
	// than 108 bytes.
	Dir string
	// Detach lets the device outlive the process that starts it. Without it the
	// device dies with its parent.
	Detach bool
}

// A TPM is a device that runs. It is safe for concurrent use, and it is a
// [github.com/google/go-tpm/tpm2/transport.TPM] that connects anew for each
// command. swtpm serves one connection at a time: whatever talks to the device
// here waits for the program under test to let go of it, 10 seconds at most.
type TPM struct {
	state   *State
	options Options
	dir     string
	process *process

	mu     sync.Mutex
	leaked []tpm2.TPMHandle
}

// socketLimit is sizeof(sun_path) on Linux, with its closing NUL.
const socketLimit = 108

// Start switches the device on (TPM2_Startup(CLEAR)) and returns when it
// answers. One state runs once at a time: swtpm locks the directory.
func (s *State) Start(options Options) (*TPM, error) {
	dir, err := socketDirectory(options.Dir)
	if err != nil {
		return nil, err
	}
	t := &TPM{state: s, options: options, dir: dir}
	if err := t.checkPaths(); err != nil {
		return nil, errors.Join(fmt.Errorf("start TPM: %w", err), t.removeSockets())
	}
	if err := t.boot(0); err != nil {
		return nil, errors.Join(fmt.Errorf("start TPM: %w", err), t.removeSockets())
	}
	return t, nil
}

// checkPaths refuses what swtpm would misread: long socket names, and a comma,
// which ends an option.
func (t *TPM) checkPaths() error {
	if len(t.controlSocket()) >= socketLimit {
		return fmt.Errorf("socket path %s has %d bytes or more", t.controlSocket(), socketLimit)
	}
	if strings.Contains(t.dir+t.state.dir, ",") {
		return fmt.Errorf("comma in %s or %s", t.dir, t.state.dir)
	}
	return nil
}

func socketDirectory(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("/tmp", "tpm")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// Socket is the path of the data socket, which carries raw TPM commands. The
// control socket is beside it, with .ctrl at the end, where the TSS's swtpm
// TCTI looks for it.
func (t *TPM) Socket() string { return filepath.Join(t.dir, "tpm") }

func (t *TPM) controlSocket() string { return t.Socket() + ".ctrl" }

// Device is the socket as the agent's configuration spells it: unix:PATH.
func (t *TPM) Device() string { return "unix:" + t.Socket() }

// Log is the path of swtpm's log.
func (t *TPM) Log() string { return filepath.Join(t.dir, "log") }

// State is the device as it lies on disk.
func (t *TPM) State() *State { return t.state }

// Pid is the process ID of swtpm, 0 after Stop. It changes with Reboot.
func (t *TPM) Pid() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.process == nil {
		return 0
	}
	return t.process.pid
}

// Reboot cuts the power and starts again: PCRs and loaded objects are gone,
// resetCount is one higher, open connections are broken. What a program had
// left loaded is remembered for Leaks.
func (t *TPM) Reboot() error { return t.reboot(0) }

func (t *TPM) reboot(locality byte) error {
	if err := t.powerOff(); err != nil {
		return fmt.Errorf("reboot TPM: %w", err)
	}
	if err := t.boot(locality); err != nil {
		return fmt.Errorf("reboot TPM: %w", err)
	}
	return nil
}

// Stop switches the device off and removes the sockets; the state stays. A
// second Stop does nothing.
func (t *TPM) Stop() error {
	if t.Pid() == 0 {
		return nil
	}
	return errors.Join(t.powerOff(), t.removeSockets())
}

// Freeze stops swtpm from answering without closing anything: a TPM that
// hangs. Thaw lets it go on.
func (t *TPM) Freeze() error { return syscall.Kill(t.Pid(), syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (t *TPM) Thaw() error { return syscall.Kill(t.Pid(), syscall.SIGCONT) }

// Leaks lists the transient objects and the loaded and saved sessions that are
// in the TPM now, or were when it was last switched off. An honest program
// leaves none.
func (t *TPM) Leaks() ([]tpm2.TPMHandle, error) {
	t.mu.Lock()
	found, running := slices.Clone(t.leaked), t.process != nil
	t.mu.Unlock()
	if !running {
		return found, nil
	}
	loaded, err := t.loaded()
	return append(found, loaded...), err
}

func (t *TPM) loaded() ([]tpm2.TPMHandle, error) {
	var found []tpm2.TPMHandle
	for _, kind := range []tpm2.TPMHT{tpm2.TPMHTTransient, tpm2.TPMHTLoadedSession, tpm2.TPMHTSavedSession} {
		response, err := tpm2.GetCapability{
			Capability:    tpm2.TPMCapHandles,
			Property:      uint32(kind) << 24,
			PropertyCount: 64,
		}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("list TPM handles: %w", err)
		}
		handles, err := response.CapabilityData.Data.Handles()
		if err != nil {
			return nil, fmt.Errorf("list TPM handles: %w", err)
		}
		found = append(found, handles.Handle...)
	}
	return found, nil
}

// boot runs swtpm and waits until it answers. A locality other than 0 is the
// one TPM2_Startup comes from, which firmware with an H-CRTM does from 3.
func (t *TPM) boot(locality byte) error {
	process, err := launch(t, locality == 0)
	if err != nil {
		return err
	}
	if err := t.startup(process, locality); err != nil {
		return errors.Join(err, process.end(), t.removeSocketFiles())
	}
	t.mu.Lock()
	t.process = process
	t.mu.Unlock()
	return nil
}

func (t *TPM) startup(process *process, locality byte) error {
	if err := process.await(t.Socket()); err != nil {
		return err
	}
	if locality != 0 {
		if err := t.startupFrom(locality); err != nil {
			return err
		}
	}
	// swtpm forgets the reset that just happened unless a command follows it.
	_, err := tpm2.ReadClock{}.Execute(t)
	return err
}

func (t *TPM) startupFrom(locality byte) error {
	if err := t.setLocality(locality); err != nil {
		return err
	}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(t); err != nil {
		return err
	}
	return t.setLocality(0)
}

// setLocality speaks swtpm's control protocol: CMD_SET_LOCALITY (5) and a
// byte; the answer is a four-byte result.
func (t *TPM) setLocality(locality byte) error {
	response, err := exchange(t.controlSocket(), []byte{0, 0, 0, 5, locality}, func(connection net.Conn) ([]byte, error) {
		result := make([]byte, 4)
		_, err := readFull(connection, result)
		return result, err
	})
	if err != nil {
		return fmt.Errorf("set locality: %w", err)
	}
	if !bytes.Equal(response, make([]byte, 4)) {
		return fmt.Errorf("set locality: swtpm answers %x", response)
	}
	return nil
}

// powerOff remembers what is loaded and ends the process.
func (t *TPM) powerOff() error {
	t.mu.Lock()
	process := t.process
	t.mu.Unlock()
	if process == nil {
		return errors.New("the TPM is off")
	}
	if err := t.Thaw(); err != nil {
		return fmt.Errorf("thaw TPM: %w", err)
	}
	loaded, err := t.loaded()
	t.mu.Lock()
	t.leaked = append(t.leaked, loaded...)
	t.process = nil
	t.mu.Unlock()
	return errors.Join(err, process.end(), t.removeSocketFiles())
}

// startTimeout is how long a loaded machine may take to start swtpm; it takes
// 5 to 20 ms on an idle one.
const startTimeout = 20 * time.Second

func (t *TPM) removeSocketFiles() error {
	return errors.Join(removeFile(t.Socket()), removeFile(t.controlSocket()))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (t *TPM) removeSockets() error {
	if t.options.Dir == "" {
		return os.RemoveAll(t.dir)
	}
	// The agent's lock lies beside the socket it guards.
	return errors.Join(t.removeSocketFiles(), removeFile(t.Socket()+".lock"))
}
