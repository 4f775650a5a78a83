// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// odd has in its words what each of the forms could take for its own.
type odd struct {
	Mode  string `help:"It's [odd]: $(x) \"y\" 100% back\\slash." enum:"a,b" default:"a" short:"m"`
	Quiet bool   `help:".dot first; 'quoted'."`
	Inner struct {
		Deep struct {
			Files []string `help:"Files." placeholder:"FILE"`
			Left  string   `hidden:"" help:"Hidden."`
			Names []string `arg:"" optional:"" help:"Names: any."`
		} `cmd:"" help:"It's deeper: [so]."`
	} `cmd:"" help:"Has $(one) below."`
	Secret struct{} `cmd:"" hidden:"" help:"Hidden."`
}

func model(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := kong.New(new(odd), kong.Name("odd-tool"))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// TestOddWords has a program that reads each form judge it.
func TestOddWords(t *testing.T) {
	about := About{
		Date: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Version: "v1", Summary: "it's \\ odd",
		Description: ".first paragraph\n\nsecond", Exits: []Entry{{"0", "Done."}}, SeeAlso: []string{"man(1)"},
	}
	for name, c := range map[string]struct {
		text  string
		judge []string
	}{
		"page": {Page(model(t), about), []string{"mandoc", "-T", "lint", "-W", "style"}},
		"bash": {Bash(model(t)), []string{"shellcheck", "--shell=bash"}},
		"zsh":  {Zsh(model(t)), []string{"zsh", "-n"}},
		"fish": {Fish(model(t)), []string{"fish", "--no-execute"}},
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(c.judge[0], append(c.judge[1:], file)...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, c.text)
		}
		if strings.Contains(c.text, "ecret") || strings.Contains(c.text, "--left") || !strings.Contains(c.text, "deep") {
			t.Errorf("%s tells what is hidden, or not what is there:\n%s", name, c.text)
		}
	}
}
