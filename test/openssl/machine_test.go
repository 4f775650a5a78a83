// SPDX-License-Identifier: Apache-2.0

package openssl

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// patience is for a busy machine.
const patience = time.Minute

// machine is a host with a TPM, a resource manager and a key that lives there.
type machine struct {
	dir string   // key.pem, chain.pem, ca.pem
	env []string // of programs that use the TPM
	ca  *authority
}

// newMachine makes the key of a certificate in a TPM that prepare has made ready,
// has it certified, and starts what programs reach the TPM by.
func newMachine(t *testing.T, usage issuer.Usage, prepare func(*testing.T, *tpmsim.TPM)) *machine {
	t.Helper()
	sim := tpmsim.Start(t)
	prepare(t, sim)
	m := &machine{dir: t.TempDir(), ca: newAuthority(t)}
	makePair(t, sim, m, usage)
	address := startBus(t)
	m.env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + m.dir, "DBUS_SESSION_BUS_ADDRESS=" + address,
		"TPM2OPENSSL_TCTI=tabrmd:bus_type=session",
	}
	broker := m.command(t, "tpm2-abrmd", "--allow-root", "--session", "--tcti=swtpm:path="+sim.Socket())
	start(t, broker)
	await(t, "tpm2-abrmd on its bus", func() bool {
		out, err := m.command(t, "dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus",
			"org.freedesktop.DBus.NameHasOwner", "string:com.intel.tss2.Tabrmd").Output()
		return err == nil && strings.Contains(string(out), "boolean true")
	})
	return m
}

// persist keeps the storage root where most machines have it.
func persist(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.ECCSRKTemplate); err != nil {
		t.Fatal(err)
	}
}

// makePair goes the agent's way: a key in the TPM, its request, its certificate.
func makePair(t *testing.T, sim *tpmsim.TPM, m *machine, usage issuer.Usage) {
	t.Helper()
	opened, err := tpm.Open(t.Context(), tpm.Config{Device: sim.Device()})
	if err != nil {
		t.Fatal(err)
	}
	storage, err := opened.Storage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := issuer.NewKey(t.Context(), issuer.ModeResident, storage)
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.CSR(issuer.Request{
		Name: "service", CommonName: "service.example", IP: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Usage: usage, TTL: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	private, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(storage.Close(t.Context()), opened.Close()); err != nil {
		t.Fatal(err)
	}
	m.write(t, "key.pem", private.Reveal())
	m.write(t, "chain.pem", m.ca.sign(t, request, usage))
	m.write(t, "ca.pem", m.ca.pem())
}

func (m *machine) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(m.path(name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// command is a program of this machine; what is missing is said with its package.
func (m *machine) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends tpm2-openssl tpm2-abrmd libtss2-tcti-tabrmd0 dbus-daemon dbus-bin openssl python3", err)
	}
	command := exec.CommandContext(context.WithoutCancel(t.Context()), path, args...)
	command.Env = m.env
	return command
}

// startBus gives the address of a message bus that lasts as long as the test.
func startBus(t *testing.T) (address string) {
	t.Helper()
	m := &machine{env: []string{"PATH=/usr/bin:/bin"}}
	// A folder of a short name: the address of a socket has less than 108 bytes.
	dir, err := os.MkdirTemp("/tmp", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bus := m.command(t, "dbus-daemon", "--session", "--nofork", "--print-address=1", "--address=unix:path="+filepath.Join(dir, "bus"))
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, bus)
	address, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon: %v", err)
	}
	return strings.TrimSpace(address)
}

// start runs a program until the end of the test, which asks it to end.
func start(t *testing.T, command *exec.Cmd) {
	t.Helper()
	log := new(tail)
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.WaitDelay = patience
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What it does with the signal is its own affair: the TPM is looked at later.
		_ = command.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
		_ = command.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(command.Path), log)
		}
	})
}

// tail is the end of what a program says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	l.text = l.text[max(0, len(l.text)-8<<10):]
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// startServer runs a program that says "ACCEPT host:port" when it listens.
func startServer(t *testing.T, command *exec.Cmd) (address string) {
	t.Helper()
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := command.StdinPipe() // s_server ends with its input
	if err != nil {
		t.Fatal(err)
	}
	start(t, command)
	t.Cleanup(func() { in.Close() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, where, found := strings.Cut(lines.Text(), "ACCEPT "); found {
			go io.Copy(io.Discard, out)
			return where
		}
	}
	t.Fatalf("%s ended before it listened: %v", filepath.Base(command.Path), lines.Err())
	return ""
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not there after %s", what, patience)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// portOf makes an address of this machine out of what a server said.
func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

func usages(usage issuer.Usage) []x509.ExtKeyUsage {
	if usage == issuer.ClientAuth {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}
