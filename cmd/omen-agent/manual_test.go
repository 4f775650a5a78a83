// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"funlab.casa/omen/internal/manual"
)

func model(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := newParser(new(cli), io.Discard, io.Discard, new(int))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// walk visits every command that people see, with the words that lead to it.
func walk(node *kong.Node, path []string, visit func(node *kong.Node, path []string)) {
	visit(node, path)
	for _, child := range node.Children {
		if !child.Hidden {
			walk(child, append(slices.Clone(path), child.Name), visit)
		}
	}
}

// TestManualPage: every command, flag, argument and exit code is in the page, and two
// programs that read such pages find nothing wrong with it.
func TestManualPage(t *testing.T) {
	page := manual.Page(model(t), about(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)))
	plain := strings.ReplaceAll(page, `\-`, "-")
	walk(model(t).Node, nil, func(node *kong.Node, path []string) {
		if len(path) > 0 && !strings.Contains(plain, "\n.SS "+strings.Join(path, " ")+"\n") {
			t.Errorf("command %v is not in the page", path)
		}
		for _, flag := range node.Flags {
			if !flag.Hidden && !strings.Contains(plain, `\fB--`+flag.Name+`\fR`) {
				t.Errorf("flag --%s of %v is not in the page", flag.Name, path)
			}
		}
	})
	for _, want := range []string{".B omen-agent config check", `\fIPCR=VALUE ...\fR`, "The default is /etc/omen-agent/agent.toml.", "2026-11-24"} {
		if !strings.Contains(plain, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if strings.Contains(plain, "completion") {
		t.Error("a hidden command is in the page")
	}
	file := filepath.Join(t.TempDir(), "omen-agent.1")
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mandoc", "-T", "lint", "-W", "style", file},
		{"man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", file},
	} {
		var said bytes.Buffer
		judge := exec.Command(command[0], command[1:]...)
		judge.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=80")
		judge.Stderr = &said
		out, err := judge.Output()
		if command[0] == "mandoc" {
			said.Write(out)
		}
		if err != nil || said.Len() > 0 {
			t.Errorf("%v: %v\n%s", command, err, said.String())
		}
	}
}

// typed are beginnings of command lines, with some of what a shell must offer for the
// last word, and something that it must not.
var typed = []struct {
	line  string
	want  []string
	never string
}{
	{"omen-agent ", []string{"renew", "run", "config", "uninstall"}, "check"},
	{"omen-agent un", []string{"unseal", "uninstall"}, "run"},
	{"omen-agent config ", []string{"check"}, "renew"},
	{"omen-agent renew --", []string{"--certificate", "--ticket-file", "--output"}, "--bank"},
	{"omen-agent --output ", []string{"json", "text"}, "renew"},
	{"omen-agent --log-level ", []string{"debug", "warn"}, "json"},
	{"omen-agent --config run --output json identity --b", []string{"--bank"}, "--clear"},
	{"omen-agent identity --bank ", []string{"sha256", "sha384"}, "sha1"},
}

// completed has a shell complete lines: the script gets the completion's path, and the
// lines on its input, and prints for each what is offered, then a line with "=".
func completed(t *testing.T, shell []string, file string, lines []string) map[string][]string {
	t.Helper()
	command := exec.Command(shell[0], append(slices.Clone(shell[1:]), file)...)
	command.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C.UTF-8", "TERM=dumb")
	command.Dir = t.TempDir()
	command.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := command.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n=\n") != len(lines) {
		t.Fatalf("%s: %v\n%s", shell[0], err, out)
	}
	offered := map[string][]string{}
	for n, answer := range strings.Split(string(out), "\n=\n")[:len(lines)] {
		for line := range strings.Lines(answer) {
			if fields := strings.Fields(line); len(fields) > 0 {
				offered[lines[n]] = append(offered[lines[n]], strings.TrimSuffix(fields[0], "="))
			}
		}
	}
	return offered
}

// shells are asked as they can be: bash by its function, with the words as readline
// cuts them; zsh by a terminal; fish by a command of its own.
var shells = map[string][]string{
	"bash": {"bash", "--norc", "testdata/complete.bash"},
	"zsh":  {"zsh", "-f", "testdata/complete.zsh"},
	"fish": {"fish", "--no-config", "testdata/complete.fish"},
}

// script is a shell's, started from another folder.
func script(t *testing.T, shell string) []string {
	t.Helper()
	here, err := filepath.Abs(shells[shell][2])
	if err != nil {
		t.Fatal(err)
	}
	return []string{shells[shell][0], shells[shell][1], here}
}

// laid is a completion as a file, under the name that zsh wants.
func laid(t *testing.T, shell string) string {
	t.Helper()
	text := map[string]func(*kong.Application) string{"bash": manual.Bash, "zsh": manual.Zsh, "fish": manual.Fish}[shell](model(t))
	file := filepath.Join(t.TempDir(), "_omen-agent")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCompletions has each shell complete what a person begins to type, and every
// command and flag of the model.
func TestCompletions(t *testing.T) {
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			var lines []string
			for _, c := range typed {
				lines = append(lines, c.line)
			}
			walk(model(t).Node, []string{"omen-agent"}, func(_ *kong.Node, path []string) {
				lines = append(lines, strings.Join(path, " ")+" ", strings.Join(path, " ")+" --")
			})
			offered := completed(t, script(t, shell), laid(t, shell), lines)
			for _, c := range typed {
				for _, want := range c.want {
					if !slices.Contains(offered[c.line], want) {
						t.Errorf("%q: %s is not offered: %v", c.line, want, offered[c.line])
					}
				}
				if slices.Contains(offered[c.line], c.never) {
					t.Errorf("%q: %s is offered", c.line, c.never)
				}
			}
			walk(model(t).Node, []string{"omen-agent"}, func(node *kong.Node, path []string) {
				offers(t, offered, node, strings.Join(path, " ")+" ")
			})
		})
	}
}

// offers looks whether everything below a command is offered behind it.
func offers(t *testing.T, offered map[string][]string, node *kong.Node, line string) {
	t.Helper()
	for _, flag := range node.Flags {
		if !flag.Hidden && !slices.Contains(offered[line+"--"], "--"+flag.Name) {
			t.Errorf("%q: --%s is not offered: %v", line, flag.Name, offered[line+"--"])
		}
	}
	for _, child := range node.Children {
		if child.Hidden == slices.Contains(offered[line], child.Name) {
			t.Errorf("%q: %s: hidden %v, offered %v", line, child.Name, child.Hidden, offered[line])
		}
	}
}

// TestBashValues: readline takes the = of --output=json for a word of its own.
func TestBashValues(t *testing.T) {
	wants := map[string][]string{
		"omen-agent --output=":               {"text", "json"},
		"omen-agent --output=j":              {"json"},
		"omen-agent --output=json config ch": {"check"},
		"omen-agent --config=run config ch":  {"check"},
	}
	offered := completed(t, script(t, "bash"), laid(t, "bash"), slices.Sorted(maps.Keys(wants)))
	for line, want := range wants {
		if !slices.Equal(offered[line], want) {
			t.Errorf("%q: %q, want %q", line, offered[line], want)
		}
	}
}
