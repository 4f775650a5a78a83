// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/test/world"
	"funlab.casa/omen/tpmsim"
)

// A loss is when a TPM vanishes, and for how long.
type loss struct {
	command  string // by the name of the TCG
	number   int    // the first, second… of them; of all commands where none is named
	answered bool   // the TPM has done it, and nobody hears
	lasts    bool   // until mend. Else its power is back at once
}

// A lead is the way from a host's agent to its TPM, which hears every command.
type lead struct {
	host *world.Host
	path string

	mu       sync.Mutex
	listener net.Listener
	armed    *loss
	met      int
	struck   chan struct{} // closed when the TPM has vanished
	commands []string      // that were sent
	lost     int           // objects and sessions that went with the power
	quoting  func()        // called before the next quote: between a challenge and its login
	fault    error         // of the test's own
}

func newLead(t *testing.T, h *world.Host) *lead {
	t.Helper()
	d := &lead{host: h, path: filepath.Join(filepath.Dir(h.TPM.Socket()), "lead")}
	must(t, d.listen())
	t.Cleanup(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		_ = d.listener.Close()
		must(t, d.fault)
	})
	return d
}

// device is the lead as agent.toml spells it.
func (d *lead) device() string { return "unix:" + d.path }

func (d *lead) listen() error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", d.path)
	if err != nil {
		return err
	}
	d.listener = listener
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go d.serve(connection)
		}
	}()
	return nil
}

// serve passes commands on until one of both goes away.
func (d *lead) serve(agent net.Conn) {
	defer func() { _ = agent.Close() }()
	device, err := net.Dial("unix", d.host.TPM.Socket())
	if err != nil {
		return
	}
	for err == nil {
		err = d.pass(agent, device)
	}
	_ = device.Close()
	if errors.Is(err, errVanished) {
		d.strike()
	}
}

var errVanished = errors.New("the TPM vanishes")

func (d *lead) pass(agent, device net.Conn) error {
	command, err := message(agent)
	if err != nil {
		return err
	}
	if act := d.before(command); act != nil {
		act()
	}
	due, answered := d.due(command)
	if due && !answered {
		return errVanished
	}
	if _, err := device.Write(command); err != nil {
		return err
	}
	response, err := message(device)
	if err != nil {
		return err
	}
	if due {
		return errVanished
	}
	_, err = agent.Write(response)
	return err
}

// message reads a command or a response: the size is in bytes 2 to 5.
func message(from net.Conn) ([]byte, error) {
	header := make([]byte, 10)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[2:6])
	if size < 10 || size > 8192 {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	whole := append(header, make([]byte, size-10)...)
	_, err := io.ReadFull(from, whole[10:])
	return whole, err
}

// before is what is to be done before a command, once.
func (d *lead) before(command []byte) (act func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if tpm.CommandName(command) == "Quote" {
		act, d.quoting = d.quoting, nil
	}
	return act
}

// beforeQuote has something done between the next challenge and its login.
func (d *lead) beforeQuote(act func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quoting = act
}

// due reports that the TPM vanishes with this command, and whether it answers it.
func (d *lead) due(command []byte) (due, answered bool) {
	name := tpm.CommandName(command)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commands = append(d.commands, name)
	if d.armed == nil || d.armed.command != "" && d.armed.command != name {
		return false, false
	}
	d.met++
	return d.met == d.armed.number, d.armed.answered
}

// arm prepares a loss, and forgets what commands there were.
func (d *lead) arm(l loss) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, d.met, d.commands, d.struck = &l, 0, nil, make(chan struct{})
}

// strike cuts the TPM's power.
func (d *lead) strike() {
	d.mu.Lock()
	defer d.mu.Unlock()
	lasts := d.armed.lasts
	d.armed = nil
	if lasts {
		d.fault = errors.Join(d.fault, d.listener.Close(), d.host.TPM.Stop())
	} else {
		d.fault = errors.Join(d.fault, d.host.TPM.Reboot())
		left, err := d.host.TPM.Leaks()
		d.lost, d.fault = len(left), errors.Join(d.fault, err)
	}
	close(d.struck)
}

// mend gives the power back.
func (d *lead) mend(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	device := check(d.host.TPM.State().Start(tpmsim.Options{Dir: filepath.Dir(d.path)}))(t)
	d.host.TPM = device
	if err := os.Remove(d.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	must(t, d.listen())
}

// sent are the commands since arm.
func (d *lead) sent() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.commands...)
}

// left counts what is in the TPM but was not there when its power went.
func (d *lead) left() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left, err := d.host.TPM.Leaks()
	return len(left) - d.lost, err
}
