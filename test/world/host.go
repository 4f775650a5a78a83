// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/tpmsim"
)

// A Host is one machine of the world: its files, users, processes, name and
// TPM are its own, the network is the world's.
type Host struct {
	Name string      // one label: spire
	IP   string      // the address that is this host's
	TPM  *tpmsim.TPM // runs; nobody but this host's agent uses it

	pid   int // its process 1, in the world's numbering
	stdin io.Closer
	root  *os.File
	ended chan struct{}
}

// FQDN is the host's full name: spire.funlab.casa.
func (h *Host) FQDN() string { return h.Name + "." + Domain }

// startHost makes the namespaces and waits until the host's files are there.
func startHost(dir, name, ip string) (*Host, error) {
	cmd := again(stageHost, dir)
	cmd.Env = append(cmd.Env, hostVariable+"="+name)
	cmd.Stdin, cmd.Stdout = nil, nil
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
		Setpgid:    true, // an interrupt from the terminal is not for it
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start host %s: %w", name, err)
	}
	h := &Host{Name: name, IP: ip, pid: cmd.Process.Pid, stdin: stdin, ended: make(chan struct{})}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	go func() { defer close(h.ended); _ = cmd.Wait() }()
	if readErr != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("host %s did not come up", name), h.close())
	}
	h.root, err = os.Open(fmt.Sprintf("/proc/%d/root", h.pid))
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// close ends every process of the host, and its TPM.
func (h *Host) close() error {
	err := h.stdin.Close()
	<-h.ended
	if h.root != nil {
		err = errors.Join(err, h.root.Close())
	}
	if h.TPM != nil {
		err = errors.Join(err, h.TPM.Stop())
	}
	return err
}

// Lines of /etc that make a host itself.
func (h *Host) writeIdentity(hosts string) error {
	return errors.Join(
		h.WriteFile("/etc/hostname", []byte(h.Name+"\n"), 0o644),
		h.WriteFile("/etc/hosts", []byte(hosts), 0o644),
	)
}

// Shell is the command that puts a person on this host, from outside the world.
func (w *World) Shell(h *Host) string {
	return fmt.Sprintf("nsenter -t %d -a nsenter -t %d -m -u -p bash", w.place.outerPid, h.pid)
}
