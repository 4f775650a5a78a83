// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// How many connections may be open: of one user that is listed, and of all others
// together, so that nobody keeps anybody else out.
const (
	mostOfUser   = 32
	mostOfOthers = 8
)

// others stands for every user that is not listed.
const others = -1

// listener takes connections and asks the kernel whose they are.
type listener struct {
	*net.UnixListener
	allowed func(uid uint32) bool
	mutex   sync.Mutex
	open    map[int64]int // by user, or others
}

// conn is a connection of a process whose user is known.
type conn struct {
	net.Conn
	uid     uint32
	allowed bool
	free    func()
}

// Close gives the connection's place back.
func (c *conn) Close() error {
	c.free()
	return c.Conn.Close()
}

// Accept takes the next connection for which there is room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := userOf(accepted)
		if err != nil {
			_ = accepted.Close()
			continue
		}
		c := &conn{Conn: accepted, uid: uid, allowed: l.allowed(uid)}
		if l.take(c) {
			return c, nil
		}
		_ = accepted.Close()
	}
}

// take finds a place for a connection.
func (l *listener) take(c *conn) bool {
	key, most := int64(others), mostOfOthers
	if c.allowed {
		key, most = int64(c.uid), mostOfUser
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.open[key] >= most {
		return false
	}
	l.open[key]++
	c.free = sync.OnceFunc(func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if l.open[key]--; l.open[key] == 0 {
			delete(l.open, key)
		}
	})
	return true
}

// userOf is the user of the process that connected, as the kernel says.
func userOf(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, fmt.Errorf("ask whose connection it is: %w", failed)
	}
	return peer.Uid, nil
}

// errServed says that another process serves at the socket.
var errServed = errors.New("another process serves there")

// clearSocket removes the socket of a process that was killed. What is served stays,
// and what is no socket.
func clearSocket(path string) error {
	var stat unix.Stat_t
	err := unix.Lstat(path, &stat)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case stat.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	other, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		_ = other.Close()
		return fmt.Errorf("%s: %w", path, errServed)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return unix.Unlink(path)
}
