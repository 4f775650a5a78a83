// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bareRestart restarts a service and does nothing else: TERM to every process of the
// session that the pid file names, the same command again as the user keylime, as
// soon as they have ended.
func bareRestart(pidFile, log, program string) int {
	if err := restartBarely(pidFile, log, program); err != nil {
		fmt.Fprintln(os.Stderr, "restart:", err)
		return 1
	}
	return 0
}

func restartBarely(pidFile, log, program string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	session := strings.TrimSpace(string(text))
	if err := endSession(session); err != nil {
		return err
	}
	return startBarely(pidFile, log, program)
}

// endSession waits as long as Keylime takes; what ignores TERM for ten seconds is
// killed.
func endSession(session string) error {
	began := time.Now()
	members := inSession(session)
	if len(members) == 0 {
		return fmt.Errorf("session %s has no process", session)
	}
	signal := func(signal syscall.Signal) {
		for _, pid := range inSession(session) {
			_ = syscall.Kill(pid, signal) // it may have ended
		}
	}
	signal(syscall.SIGTERM)
	for len(inSession(session)) > 0 {
		if time.Since(began) > 20*time.Second {
			return fmt.Errorf("session %s does not end", session)
		}
		if time.Since(began) > 10*time.Second {
			signal(syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond) // nobody tells of the end of another's processes
	}
	return nil
}

// inSession lists the processes of a session that have not ended.
func inSession(session string) []int {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var members []int
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest) // state, parent, group, session
		if len(fields) < 4 || fields[3] != session || fields[0] == "Z" {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			members = append(members, pid)
		}
	}
	return members
}

func startBarely(pidFile, log, program string) error {
	who, err := user.Lookup("keylime")
	if err != nil {
		return err
	}
	uid, errUID := strconv.ParseUint(who.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(who.Gid, 10, 32)
	out, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err = errors.Join(errUID, errGID, err); err != nil {
		return err
	}
	defer out.Close()                                                                            //nolint:errcheck // the service has its own
	cmd := &exec.Cmd{Path: program, Args: []string{program}, Dir: "/", Stdout: out, Stderr: out} // it outlives this program
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + who.HomeDir, "USER=keylime", "LOGNAME=keylime"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if err := cmd.Start(); err != nil {
		return err
	}
	return os.WriteFile(pidFile, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o644)
}
