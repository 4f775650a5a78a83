// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Config says which TPM to open and how patient to be.
type Config struct {
	// Device is a device node (/dev/tpmrm0, the default), unix:PATH or
	// tcp:HOST:PORT. Sockets carry raw TPM commands, as swtpm's do.
	Device string
	// OwnerAuth and EndorsementAuth authorise the hierarchies; most machines
	// leave both empty.
	OwnerAuth, EndorsementAuth AuthValue
	// Timeout bounds one command; 0 is DefaultTimeout.
	Timeout time.Duration
	// LockWait bounds the wait for another program of ours that holds the
	// socket; 0 is DefaultLockWait. Device nodes need none: the kernel shares
	// them.
	LockWait time.Duration
	// Observe, if set, hears the name of every command just before it is sent.
	Observe func(command string)
}

// Defaults of Config. A discrete TPM may take a minute to make an RSA key.
const (
	DefaultDevice   = "/dev/tpmrm0"
	DefaultTimeout  = 90 * time.Second
	DefaultLockWait = 5 * time.Second
)

// Errors a caller tells apart: each has another remedy.
var (
	// ErrAbsent says that there is no TPM where the configuration says.
	ErrAbsent = errors.New("no TPM there")
	// ErrBusy says that another program holds the TPM.
	ErrBusy = errors.New("the TPM is in use by another program")
	// ErrDenied says that this user may not open the TPM.
	ErrDenied = errors.New("no permission to open the TPM")
	// ErrAuth says that the authorisation value of a hierarchy is another one than
	// the configured.
	ErrAuth = errors.New("not authorised")
	// ErrNoAnswer says that a command was not answered in time, or that the TPM went
	// away in its midst. The connection is of no use after it.
	ErrNoAnswer = errors.New("the TPM does not answer")
)

// A TPM is one open connection. It is safe for concurrent use; commands are
// sent one at a time. Open makes one, Close ends it.
type TPM struct {
	link   *link
	config Config
}

// Open connects to the TPM and sends it nothing, but where a program of ours was
// killed that held an emulator's socket: then it flushes what that one had loaded.
// Its error is or wraps ErrAbsent, ErrBusy or ErrDenied where one of them says it.
func Open(ctx context.Context, config Config) (*TPM, error) {
	if config.Device == "" {
		config.Device = DefaultDevice
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	if config.LockWait == 0 {
		config.LockWait = DefaultLockWait
	}
	if err := CheckDevice(config.Device); err != nil {
		return nil, err
	}
	connection, err := connect(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open TPM %s: %w", config.Device, explain(err))
	}
	t := &TPM{config: config}
	ledger, left := openLedger(config.Device)
	t.link = newLink(connection, config.Timeout, config.Observe, ledger)
	if err := t.sweep(ctx, left); err != nil {
		return nil, errors.Join(fmt.Errorf("open TPM %s: %w", config.Device, err), t.Close())
	}
	return t, nil
}

// Close flushes what is still loaded, and ends the connection.
func (t *TPM) Close() error {
	var err error
	for _, handle := range t.link.leftovers() {
		err = errors.Join(err, t.flush(context.Background(), handle))
	}
	return errors.Join(err, t.link.Close())
}

// CheckDevice says whether device is spelled as one of the three forms Open
// takes. It does not look whether it is there.
func CheckDevice(device string) error {
	kind, address, socket := strings.Cut(device, ":")
	switch {
	case !socket && strings.HasPrefix(device, "/dev/"):
		return nil
	case socket && kind == "unix" && filepath.IsAbs(address):
		return nil
	case socket && kind == "tcp":
		if _, _, err := net.SplitHostPort(address); err == nil {
			return nil
		}
	}
	return fmt.Errorf("TPM device %q is none of /dev/…, unix:/PATH, tcp:HOST:PORT", device)
}

func connect(ctx context.Context, config Config) (io.ReadWriteCloser, error) {
	network, address, socket := strings.Cut(config.Device, ":")
	if !socket {
		return openNode(config.Device)
	}
	lock, err := lockSocket(ctx, network, address, config.LockWait)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	connection, err := dial(ctx, network, address, config.LockWait)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &lockedConnection{Conn: connection, lock: lock}, nil
}

// dial waits while the emulator's queue of connections is full: it serves one
// at a time, and frees the place of a closed one only when it gets to it.
func dial(ctx context.Context, network, address string, wait time.Duration) (net.Conn, error) {
	for patience := time.Now().Add(wait); ; {
		connection, err := new(net.Dialer).DialContext(ctx, network, address)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(patience) {
			return connection, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// openNode opens a device node for blocking reads. Go's poller must not have
// it: the kernel's poll of a TPM waits, inside, for the command to end.
func openNode(path string) (io.ReadWriteCloser, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// A lockedConnection holds the lock that keeps a second program of ours from a
// socket: swtpm would let it in and never answer.
type lockedConnection struct {
	net.Conn
	lock *flock.Flock
}

// Close gives up the connection, then the lock.
func (c *lockedConnection) Close() error { return errors.Join(c.Conn.Close(), c.lock.Close()) }

func lockSocket(ctx context.Context, network, address string, wait time.Duration) (*flock.Flock, error) {
	path := lockPath(address)
	if network == "tcp" {
		path = filepath.Join(os.TempDir(), "omen-tpm-"+strings.ReplaceAll(address, "/", "_")+".lock")
	} else if _, err := os.Stat(address); err != nil {
		return nil, err
	}
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	locked, err := lock.TryLockContext(ctx, 20*time.Millisecond)
	if locked {
		return lock, nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w: %s is locked", ErrBusy, path)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// explain puts the one word a caller branches on in front of the system's.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO),
		errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return err
}

// lockPath is the file beside a unix socket that locks it.
func lockPath(socket string) string { return socket + ".lock" }
