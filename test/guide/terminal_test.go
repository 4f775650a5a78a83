// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"funlab.casa/omen/test/world"
)

// home is the folder in which the reader of the page has what they downloaded, and
// keeps notes.
const home = "/run/reader"

// A terminal is root's shell on a host. It lives from the page's first line to its
// last, so that variables and the working directory do.
type terminal struct {
	host  *world.Host
	stdin io.Writer
	codes *bufio.Reader
}

// openTerminal starts a shell that ends with ctx.
func openTerminal(ctx context.Context, h *world.Host) (*terminal, error) {
	if err := h.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	cmd := h.Command(ctx, "bash", "--noprofile", "--norc")
	cmd.Env = append(cmd.Env, "HOME="+home)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { <-ctx.Done(); _ = cmd.Wait() }()
	t := &terminal{host: h, stdin: stdin, codes: bufio.NewReader(stdout)}
	_, err = t.run("cd "+home, "")
	return t, err
}

// answer is what a person sees of a line that they typed.
type answer struct {
	code           int
	stdout, stderr string
}

// shown is what a page shows: what was printed; of an error, what was said. Log lines
// are left out.
func (a answer) shown() string {
	if a.code == 0 {
		return a.stdout
	}
	var said strings.Builder
	for line := range strings.Lines(a.stderr) {
		if !strings.HasPrefix(line, "time=") {
			said.WriteString(line)
		}
	}
	return a.stdout + said.String()
}

// run types a line, and what the program then asks for.
func (t *terminal) run(line, input string) (a answer, err error) {
	if err := t.host.WriteFile(home+"/.in", []byte(input), 0o600); err != nil {
		return a, err
	}
	_, err = fmt.Fprintf(t.stdin, "{\n%s\n} <%[2]s/.in >%[2]s/.out 2>%[2]s/.err\necho $?\n", line, home)
	if err != nil {
		return a, err
	}
	code, err := t.codes.ReadString('\n')
	if err != nil {
		return a, fmt.Errorf("the shell on %s ended: %w", t.host.Name, err)
	}
	if _, err := fmt.Sscan(code, &a.code); err != nil {
		return a, err
	}
	for name, into := range map[string]*string{"/.out": &a.stdout, "/.err": &a.stderr} {
		text, err := t.host.ReadFile(home + name)
		if err != nil {
			return a, err
		}
		*into = string(text)
	}
	return a, nil
}
