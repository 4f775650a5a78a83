// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What runs a command against a real systemd is in test/systemd.

func TestOwnUnit(t *testing.T) {
	for groups, ours := range map[string]bool{
		"0::/system.slice/omen-agent.service\n":                               true,
		"0::/omen-agent.service":                                              true, // a slice of its own, in a container
		"12:pids:/x\n1:name=systemd:/system.slice/omen-agent.service\n0::/\n": true,
		"":       false,
		"0::/\n": false,
		"0::/user.slice/user-0.slice/session-1.scope\n":                                          false, // a person's shell
		"0::/system.slice/ssh.service\n":                                                         false,
		"0::/system.slice/omen-agent-unseal.service\n":                                           false,
		"0::/system.slice/omen-agent.service/payload\n":                                          false, // what it started, in a group of its own
		"0::/user.slice/user-0.slice/user@0.service/app.slice/omen-agent.service\n":              false,
		"3:memory:/system.slice/omen-agent.service\n0::/user.slice/user-0.slice/session-1.scope": false, // of no meaning to systemd
	} {
		if isOwnUnit(groups) != ours {
			t.Errorf("%q: %t", groups, !ours)
		}
	}
	if inOwnUnit() {
		t.Error("a test is taken for the agent's service")
	}
}

func TestEnded(t *testing.T) {
	for want, properties := range map[string]map[string]any{
		"exit status 3":                {"Result": "exit-code", "ExecMainStatus": int32(3)},
		"signal: segmentation fault":   {"Result": "core-dump", "ExecMainStatus": int32(11)},
		"signal: killed":               {"Result": "signal", "ExecMainStatus": int32(9)},
		"job failed, result oom-kill":  {"Result": "oom-kill"},
		"job failed, result resources": {"Result": "resources", "ExecMainStatus": int32(0)},
		"job failed, result ":          {},
	} {
		if got := ended("failed", properties).Error(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	if err := ended("failed", map[string]any{"Result": "timeout"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestLiteral(t *testing.T) {
	command := []string{"/bin/$x", "$HOME", "${HOME}", "$$", "%n"}
	if got := strings.Join(literal(command), " "); got != "/bin/$$x $$HOME $${HOME} $$$$ %n" {
		t.Errorf("got %s", got)
	}
}

// TestWords: the last of them are kept, and who holds the pipe open holds up nobody.
func TestWords(t *testing.T) {
	for _, held := range []bool{false, true} {
		w, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		other, err := unix.FcntlInt(uintptr(w.write), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(other), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("the command gets a pipe that does not block: %x, %v", flags, err)
		}
		for range 100 { // more than a pipe and what is kept hold
			if _, err := unix.Write(other, []byte(strings.Repeat("x", 4<<10))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unix.Write(other, []byte("bad configuration\n")); err != nil {
			t.Fatal(err)
		}
		if held {
			defer unix.Close(other)
		} else {
			unix.Close(other)
		}
		began := time.Now()
		if said := w.end(); len(said) != len(": ")+commandShown || !strings.HasSuffix(said, "xbad configuration") || len(w.said.Bytes()) > commandOutput {
			t.Errorf("held %t: %d bytes kept, %q", held, w.said.Len(), said)
		}
		if took := time.Since(began); held != (took >= time.Second) || took > 10*time.Second {
			t.Errorf("held %t: took %v", held, took)
		}
	}
}
