// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shell is a reader at a terminal: a folder, and variables that last from one
// block to the next.
type shell struct {
	dir string
	env map[string]string
}

func newShell(t *testing.T, env map[string]string) *shell {
	t.Helper()
	s := &shell{dir: t.TempDir(), env: maps.Clone(env)}
	s.env["HOME"] = s.dir
	// A reader sees that a request was refused; a script has to be told.
	s.write(t, ".curlrc", "silent\nshow-error\nfail-with-body\nproxy=\"\"\n")
	return s
}

func (s *shell) write(t *testing.T, name, text string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
}

var assignment = regexp.MustCompile(`(?m)^([A-Z][A-Z0-9_]*)=`)

// run runs a script and keeps the variables that it sets.
func (s *shell) run(t *testing.T, script string) (string, error) {
	t.Helper()
	var names []string
	for _, m := range assignment.FindAllStringSubmatch(script, -1) {
		names = append(names, m[1])
		script += fmt.Sprintf("\nprintf %%s \"$%s\" > var.%s\n", m[1], m[1])
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = s.dir
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%w\n%s%s", err, out, stderr.String())
	}
	for _, name := range names {
		value, err := os.ReadFile(filepath.Join(s.dir, "var."+name))
		check(t, err)
		s.env[name] = string(value)
	}
	return string(out), nil
}

var variable = regexp.MustCompile(`\$[A-Z][A-Z0-9_]*`)

// payload writes payload.json, with the values that its variables stand for.
func (s *shell) payload(t *testing.T, text string) {
	t.Helper()
	s.write(t, "payload.json", variable.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := s.env[name[1:]]
		if !ok {
			t.Errorf("payload names %s, which has no value", name)
		}
		quoted, err := json.Marshal(value)
		check(t, err)
		return strings.Trim(string(quoted), `"`)
	}))
}
