// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The journal's socket has one path: these tests have a /run of their own.
const inside = "OMEN_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// apart runs the test that calls it in a mount namespace; there it reports true.
func apart(t *testing.T, output *os.File, env ...string) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), inside+"=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	var told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &told, &told
	if output != nil {
		cmd.Stderr = output
	}
	if err := cmd.Run(); err != nil || !strings.Contains(told.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, told.String())
	}
	return false
}

// TestNothingCanBeForged sends what an attacker may have put into a message, and
// reads at the socket what the journal would.
func TestNothingCanBeForged(t *testing.T) {
	if !apart(t, nil) {
		return
	}
	must(t, os.MkdirAll("/run/systemd/journal", 0o755))
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/systemd/journal/socket", Net: "unixgram"})
	must(t, err)
	defer socket.Close()
	evil := "no\nMESSAGE=all is well\nPRIORITY=7\x00\x1b[2J\n_UID=0"
	slog.New(New(slog.LevelInfo, slog.DiscardHandler)).Error("said "+evil, "error", errors.New(evil), "a\nPRIORITY", evil, "b=c", "d")
	must(t, socket.SetReadDeadline(time.Now().Add(10*time.Second)))
	datagram := make([]byte, 1<<16)
	size, err := socket.Read(datagram)
	must(t, err)
	fields := parse(t, datagram[:size])
	clean := "no MESSAGE=all is well PRIORITY=7\uFFFD\uFFFD[2J _UID=0"
	for name, want := range map[string]string{"OMEN_ERROR": clean, "OMEN_A_PRIORITY": clean, "OMEN_B_C": "d", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "omen-agent"} {
		if got := fields[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if message := fields["MESSAGE"]; len(message) != 1 || !strings.HasPrefix(message[0], "said "+clean) {
		t.Errorf("MESSAGE is %q", message)
	}
	if len(fields) != 6 {
		t.Errorf("fields: %v", fields)
	}
}

// parse reads the journal's own form: NAME=value, or NAME, a length and the value.
func parse(t *testing.T, datagram []byte) map[string][]string {
	t.Helper()
	fields := map[string][]string{}
	for len(datagram) > 0 {
		line, rest, found := bytes.Cut(datagram, []byte("\n"))
		if !found {
			t.Fatalf("not ended: %q", datagram)
		}
		name, value, whole := strings.Cut(string(line), "=")
		if !whole {
			size := binary.LittleEndian.Uint64(rest)
			value, rest = string(rest[8:8+size]), rest[8+size+1:]
		}
		fields[name], datagram = append(fields[name], value), rest
	}
	return fields
}

// TestConnected: only where JOURNAL_STREAM names this very standard error.
func TestConnected(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	defer write.Close()
	info, err := write.Stat()
	must(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	if os.Getenv(inside) == "" {
		for name, row := range map[string]struct {
			stream string
			want   bool
		}{
			"ours": {fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), true}, "another": {fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1), false},
			"none": {"", false}, "nonsense": {"x", false},
		} {
			t.Log(name)
			apart(t, write, "JOURNAL_STREAM="+row.stream, "WANT="+strconv.FormatBool(row.want))
		}
		return
	}
	if got := strconv.FormatBool(Connected()); got != os.Getenv("WANT") {
		t.Errorf("JOURNAL_STREAM=%s: %s", os.Getenv("JOURNAL_STREAM"), got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// journald is where Debian has it.
const journald = "/lib/systemd/systemd-journald"

// TestJournalKeeps has a real systemd-journald take what is sent, and journalctl find
// it by its fields.
func TestJournalKeeps(t *testing.T) {
	if !apart(t, nil) {
		return
	}
	must(t, errors.Join(os.MkdirAll("/run/systemd/journald.conf.d", 0o755), os.MkdirAll("/run/systemd/journal", 0o755),
		os.WriteFile("/run/systemd/journald.conf.d/test.conf", []byte("[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitBurst=0\n"), 0o644)))
	if _, err := os.Stat(journald); err != nil {
		t.Fatalf("%v: make setup installs systemd", err)
	}
	daemon := exec.CommandContext(t.Context(), journald)
	must(t, daemon.Start())
	defer func() {
		must(t, daemon.Process.Signal(syscall.SIGTERM))
		_ = daemon.Wait() // it was told to
	}()
	log := slog.New(New(slog.LevelInfo, slog.DiscardHandler))
	await(t, func() bool {
		_, err := os.Stat("/run/systemd/journal/socket")
		return err == nil
	})
	log.Error("renewal failed", "event", named("failed"), "certificate", "verifier", "error", errors.New("no\nOMEN_CERTIFICATE=tenant"))
	log.Warn("something else", "certificate", "tenant")
	var found []map[string]any
	await(t, func() bool {
		read := exec.CommandContext(t.Context(), "journalctl", "--directory=/run/log/journal", "--output=json", "OMEN_CERTIFICATE=verifier", "MESSAGE_ID="+named("").MessageID())
		text, err := read.Output()
		found = nil
		for line := range bytes.Lines(text) {
			var one map[string]any
			must(t, json.Unmarshal(line, &one))
			found = append(found, one)
		}
		return err == nil && len(found) > 0
	})
	if len(found) != 1 || found[0]["PRIORITY"] != "3" || found[0]["SYSLOG_IDENTIFIER"] != "omen-agent" || found[0]["_TRANSPORT"] != "journal" ||
		found[0]["OMEN_ERROR"] != "no OMEN_CERTIFICATE=tenant" || found[0]["MESSAGE"] != `renewal failed event=failed certificate=verifier error="no OMEN_CERTIFICATE=tenant"` {
		t.Errorf("%v", found)
	}
}

// await waits for a condition, for ten seconds at most.
func await(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}
