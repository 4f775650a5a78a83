// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/internal/agent"
)

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// openTerminal is a pseudo-terminal: what a person reads, and what is written to.
func openTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

// TestColours: only on a terminal, and where nobody said no.
func TestColours(t *testing.T) {
	_, terminal := openTerminal(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !isTerminal(terminal) || !coloured(terminal) || isTerminal(file) || coloured(file) || isTerminal(new(bytes.Buffer)) {
		t.Error("a terminal is not known, or something else is taken for one")
	}
	t.Setenv("NO_COLOR", "1")
	if coloured(terminal) {
		t.Error("NO_COLOR is not respected")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if coloured(terminal) {
		t.Error("a dumb terminal gets colours")
	}
}

// screen plays what a terminal of one line makes of a text.
func screen(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if at := strings.LastIndex(line, erase); at >= 0 {
			line = line[at+len(erase):]
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// TestProgressOnTerminal: one line that changes, the log above it, nothing left.
func TestProgressOnTerminal(t *testing.T) {
	var out bytes.Buffer
	bottom := &bottomLine{out: &out}
	j := &job{bottom: bottom, log: slog.New(slog.NewTextHandler(bottom, nil))}
	a := new(agent.Agent)
	end := j.progress(a)
	a.Progress(agent.StepTPM)
	a.Progress(agent.StepReload)
	if got := screen(out.String()); len(got) != 1 || got[0] != "8/9 reload: restarting services…" {
		t.Errorf("%q", got)
	}
	j.log.Warn("something")
	got := screen(out.String())
	if len(got) != 2 || !strings.Contains(got[0], "msg=something") || got[1] != "8/9 reload: restarting services…" {
		t.Errorf("%q", got)
	}
	end()
	end()
	if got := screen(out.String() + "omen-agent: error: x\n"); got[1] != "omen-agent: error: x" {
		t.Errorf("%q", got)
	}
	if len(doing) != len(agent.Steps()) {
		t.Errorf("%d steps have words", len(doing))
	}
}

// TestProgressElsewhere: a plain line for each step that is new.
func TestProgressElsewhere(t *testing.T) {
	var out bytes.Buffer
	j := &job{log: slog.New(slog.NewTextHandler(&out, nil))}
	a := new(agent.Agent)
	end := j.progress(a)
	for _, step := range []agent.Step{agent.StepTPM, agent.StepKey, agent.StepTPM, agent.StepKey} {
		a.Progress(step)
	}
	end()
	if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `msg="making keys" step=key`) || strings.Contains(got, "\x1b") {
		t.Error(got)
	}
}

// TestRenewOnTerminal types the command at a pseudo-terminal, whose TPM is not there.
func TestRenewOnTerminal(t *testing.T) {
	person, terminal := openTerminal(t)
	dir := t.TempDir()
	root, _, err := certificates()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[openbao]\naddresses = [\"https://127.0.0.1:1\"]\nca_file = \"%[1]s/root.pem\"\nrole = \"keylime\"\n[tpm]\ndevice = \"unix:%[1]s/tpm\"\nevent_log = \"none\"\n"+
		"[pki]\nanchor = \"%[1]s/root.pem\"\n[[certificate]]\nname = \"verifier\"\nprofile = \"keylime-verifier\"\ncommon_name = \"v.funlab.casa\"\n", dir)
	for name, text := range map[string][]byte{"root.pem": root, "agent.toml": []byte(config)} {
		if err := os.WriteFile(dir+"/"+name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code := run(t.Context(), []string{"--config", dir + "/agent.toml", "renew"}, new(bytes.Buffer), terminal); code != exitTPM {
		t.Errorf("exit code %d", code)
	}
	if err := person.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	seen := ""
	for text := make([]byte, 4096); !strings.Contains(seen, "hint:"); {
		size, err := person.Read(text)
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
		seen += string(text[:size])
	}
	if !strings.Contains(seen, erase+"1/9 tpm: asking the TPM…") || !strings.Contains(seen, erase+"omen-agent: error: tpm: ") {
		t.Errorf("%q", seen)
	}
}
