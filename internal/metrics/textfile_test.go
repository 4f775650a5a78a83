// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/internal/agent"
)

// folder is where node_exporter reads. Like Debian's it belongs to another user, and
// so does the one above it.
func folder(t *testing.T) (above, inside string) {
	t.Helper()
	above = filepath.Join(t.TempDir(), "prometheus")
	inside = filepath.Join(above, "node-exporter")
	must(t, os.MkdirAll(inside, 0o755))
	for _, name := range []string{above, inside} {
		must(t, os.Chown(name, 65534, 65534))
	}
	return above, inside
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestTextfile(t *testing.T) {
	_, inside := folder(t)
	path := filepath.Join(inside, "omen-agent.prom")
	m := New("v", path, slog.New(slog.DiscardHandler))
	m.Attempted(agent.Attempt{Ended: time.Now(), Result: agent.RenewalSucceeded, Step: agent.StepProbe})
	first, err := os.Stat(path)
	must(t, err)
	m.Observed(observed())
	info, err := os.Stat(path)
	must(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	if info.Mode() != 0o644 || stat.Uid != 0 || os.SameFile(first, info) {
		t.Errorf("%s of %d, the same file: %t", info.Mode(), stat.Uid, os.SameFile(first, info))
	}
	text, err := os.ReadFile(path)
	must(t, err)
	if now, err := m.Text(); err != nil || !bytes.Equal(text, now) || !bytes.Contains(text, []byte("omen_certificate_served")) {
		t.Errorf("%v\n%s", err, text)
	}
	if left, err := os.ReadDir(inside); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestTextfileIsWrittenNowhereElse: whoever owns the folder puts links and folders in
// the way; what they lead to is left as it is, and the loop goes on.
func TestTextfileIsWrittenNowhereElse(t *testing.T) {
	const name = "omen-agent.prom"
	for what, row := range map[string]struct {
		plant   func(above, inside, victim string) error
		written bool // at its place
	}{
		"a link in its place":    {func(_, inside, victim string) error { return os.Symlink(victim, filepath.Join(inside, name)) }, true},
		"another name of a file": {func(_, inside, victim string) error { return os.Link(victim, filepath.Join(inside, name)) }, true},
		"a link in the place of half": {func(_, inside, victim string) error {
			return os.Symlink(victim, filepath.Join(inside, "."+name+".new"))
		}, true},
		"what a killed run left": {func(_, inside, _ string) error {
			return os.WriteFile(filepath.Join(inside, "."+name+".new"), []byte("half"), 0o600)
		}, true},
		"a folder in its place": {func(_, inside, _ string) error { return os.MkdirAll(filepath.Join(inside, name, "x"), 0o755) }, false},
		"a folder in the place of half": {func(_, inside, _ string) error {
			return os.MkdirAll(filepath.Join(inside, "."+name+".new", "x"), 0o755)
		}, false},
		"the folder is a link": {func(_, inside, victim string) error {
			return errors.Join(os.Remove(inside), os.Symlink(filepath.Dir(victim), inside))
		}, false},
		"the folder above is a link": {func(above, _, victim string) error {
			there := filepath.Join(filepath.Dir(victim), "node-exporter")
			return errors.Join(os.Mkdir(there, 0o755), os.RemoveAll(above), os.Symlink(filepath.Dir(victim), above))
		}, false},
		"no folder": {func(above, _, _ string) error { return os.RemoveAll(above) }, false},
	} {
		t.Run(what, func(t *testing.T) {
			above, inside := folder(t)
			victim := filepath.Join(t.TempDir(), "victim")
			must(t, os.WriteFile(victim, []byte("as it was"), 0o600))
			must(t, row.plant(above, inside, victim))
			var log bytes.Buffer
			m := New("v", filepath.Join(inside, name), slog.New(slog.NewTextHandler(&log, nil)))
			m.Observed(observed())
			if text, err := os.ReadFile(victim); err != nil || string(text) != "as it was" {
				t.Errorf("the victim is %q, %v", text, err)
			}
			for _, elsewhere := range []string{name, "node-exporter/" + name} {
				if _, err := os.Lstat(filepath.Join(filepath.Dir(victim), elsewhere)); err == nil {
					t.Errorf("%s was written beside the victim", elsewhere)
				}
			}
			info, err := os.Lstat(filepath.Join(inside, name))
			if written := err == nil && info.Mode().IsRegular(); written != row.written {
				t.Errorf("written: %t, %v", written, err)
			}
			if said := strings.Contains(log.String(), "metrics are not written"); said == row.written {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}
