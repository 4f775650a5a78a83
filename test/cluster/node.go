// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Node is one server. Its methods are called by one goroutine at a time.
type Node struct {
	Name    string // node1
	Address string // https://127.0.0.1:port

	cluster   *Cluster
	dir       string
	port      int // of the listener
	peerPort  int // of the cluster's own traffic
	first     bool
	plugins   []string // declarations of the configuration
	cmd       *exec.Cmd
	ended     chan struct{} // closed when cmd has ended
	processes pluginProcesses
}

func newNode(c *Cluster, index, port, peerPort int) *Node {
	name := fmt.Sprintf("node%d", index+1)
	dir := filepath.Join(c.dir, name)
	return &Node{
		Name: name, Address: fmt.Sprintf("https://127.0.0.1:%d", port),
		cluster: c, dir: dir, port: port, peerPort: peerPort, first: index == 0,
		processes: pluginProcesses{dir: filepath.Join(dir, "plugins")},
	}
}

// furnish makes the node's directories, certificate, plugins and configuration.
func (n *Node) furnish() error {
	for _, dir := range []string{"", "data", "plugins", "tmp"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o700); err != nil {
			return err
		}
	}
	certificate, key, err := n.cluster.ca.ServerPair("127.0.0.1", nil, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(n.dir, "tls.crt"), certificate, 0o600),
		os.WriteFile(filepath.Join(n.dir, "tls.key"), key, 0o600),
	)
	for _, p := range n.cluster.config.Plugins {
		err = errors.Join(err, n.Declare(p))
	}
	return errors.Join(err, n.writeConfig())
}

// Start starts the server and returns when it answers requests, as the leader or
// as a standby.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("start %s: runs already", n.Name)
	}
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(n.cluster.config.Bao, "server", "-config=node.hcl")
	cmd.Dir = n.dir // the audit file's path is relative: the same on all nodes
	cmd.Env = []string{"HOME=" + n.dir, "TMPDIR=" + filepath.Join(n.dir, "tmp"), "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = log, log
	// A signal from the terminal is not for it, but it shall not outlive us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	n.cmd, n.ended = cmd, ended
	return n.awaitReady(ctx)
}

// Running reports whether the server's process is there.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

var errEnded = errors.New("the server has ended")

func (n *Node) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	err := Await(ctx, func(ctx context.Context) error {
		if !n.Running() {
			return errEnded
		}
		return n.ready(ctx)
	})
	if err == nil {
		return nil
	}
	text, _ := os.ReadFile(n.LogFile())
	return fmt.Errorf("%s: %w; its log ends:\n%s", n.Name, err, lastLines(string(text), 20))
}

// ready is for an unsealed server that passes requests on to the leader, or is
// the leader. A token that no node knows is one that OpenBao asks the leader
// about.
func (n *Node) ready(ctx context.Context) error {
	status, err := n.health(ctx)
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusTooManyRequests {
		return fmt.Errorf("sys/health says %d", status)
	}
	status, _, err = n.get(ctx, "/v1/auth/token/lookup-self", "s.unknown")
	if err == nil && status != http.StatusForbidden {
		err = fmt.Errorf("an unknown token gets %d", status)
	}
	return err
}

// Stop asks the server to end (TERM), which hands its leadership over, and waits.
func (n *Node) Stop() error {
	if !n.Running() {
		return nil
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	select {
	case <-n.ended:
		return n.processes.kill()
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("stop %s: it does not end", n.Name), n.Kill())
	}
}

// Kill ends the server at once (KILL), and then its plugins, which outlive it.
func (n *Node) Kill() error {
	if n.Running() {
		if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill %s: %w", n.Name, err)
		}
		<-n.ended
	}
	return n.processes.kill()
}

// LogFile is where the server and its plugins write to.
func (n *Node) LogFile() string { return filepath.Join(n.dir, "log") }

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
