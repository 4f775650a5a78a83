// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
)

// parserProgram does what keylime.config does: RawConfigParser.read of a main
// file and then of every file in its conf.d, sorted; a value is cleaned of quotes
// and a list is a Python list.
const parserProgram = `
import ast, configparser, json, os, sys
for line in sys.stdin:
    root, component = json.loads(line)
    base = os.path.join(root, "etc/keylime", component + ".conf")
    try:
        parser = configparser.RawConfigParser()
        files = [base]
        if os.path.isdir(base + ".d"):
            files += [os.path.join(base + ".d", f) for f in sorted(os.listdir(base + ".d"))]
        for name in files:
            with open(name) as f:
                parser.read_file(f)
        answer = {}
        for key, value in parser.items(component):
            value = value.strip('"')
            answer[key] = ast.literal_eval(value) if value.startswith("[") else [value]
        print(json.dumps({"values": answer}), flush=True)
    except Exception as e:
        print(json.dumps({"error": repr(e)}), flush=True)
`

// parser is Python's own parser of configurations, which Keylime uses.
type parser struct {
	mutex   sync.Mutex
	command *exec.Cmd
	to      io.WriteCloser
	from    *bufio.Scanner
}

func newParser(t *testing.T) *parser {
	t.Helper()
	p := &parser{command: exec.Command("python3", "-I", "-c", parserProgram)}
	var err error
	if p.to, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	from, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.from = bufio.NewScanner(from)
	if err := p.command.Start(); err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends python3", err)
	}
	t.Cleanup(func() {
		p.to.Close()
		if err := p.command.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// settings are the effective ones of a component.
func (p *parser) settings(root, component string) (map[string][]string, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := json.NewEncoder(p.to).Encode([]string{root, component}); err != nil {
		return nil, err
	}
	if !p.from.Scan() {
		return nil, fmt.Errorf("python3 gave no answer: %w", p.from.Err())
	}
	var answer struct {
		Values map[string][]string
		Error  string
	}
	if err := json.Unmarshal(p.from.Bytes(), &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", component, answer.Error)
	}
	return answer.Values, nil
}
