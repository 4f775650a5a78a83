// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// These tests have Keylime's own parser as judge. There is no Rust agent here: what
// is said of its TOML was measured with one and is checked against our reader.

// findPython is the interpreter of the environment that make setup prepares.
func findPython() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	found, err := filepath.EvalSymlinks(filepath.Join(dir, ".cache/venv"))
	if err != nil {
		return "", fmt.Errorf("find Keylime: make setup (%w)", err)
	}
	return found + "/bin/python", nil
}

func python(t *testing.T) string {
	t.Helper()
	found, err := findPython()
	must(t, err)
	return found
}

// somebody is the user that Keylime runs as here.
const somebody = 4711

// reader is a Python that has Keylime loaded. For each question it forks, becomes
// the service's user, and reads the configuration anew. It ends with its input.
type reader struct {
	questions io.Writer
	answers   *bufio.Reader
}

const readerProgram = `
import importlib, json, os, ssl, sys
from keylime import config, web_util

def shake(root, ca):
    contexts = [web_util.generate_tls_context(root + "/v.crt", root + "/v.key", [ca], is_client=c) for c in (False, True)]
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [contexts[0].wrap_bio(one, two, server_side=True), contexts[1].wrap_bio(two, one)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ends[1].version()

def answer(root, expression, environment):
    os.setgroups([])
    os.setgid(4711)
    os.setuid(4711)
    os.environ.update(variable.split("=", 1) for variable in environment or [])
    importlib.reload(config)
    for table in (config.CONFIG_FILES, config.CONFIG_SNIPPETS_DIRS):
        for component in table:
            table[component] = [root + path for path in table[component]]
    try:
        return {"answer": eval(expression, {"config": config, "web_util": web_util, "shake": shake})}
    except Exception as e:
        chain = []
        while e is not None:
            chain.append(type(e).__name__ + ": " + str(e))
            e = e.__cause__
        return {"failure": "; ".join(chain)}

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        print("=", json.dumps(answer(**json.loads(line))), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        print("=", json.dumps({"failure": "the reader died"}), flush=True)
`

var keylimeReader = sync.OnceValues(func() (*reader, error) {
	python, err := findPython()
	if err != nil {
		return nil, err
	}
	command := exec.Command(python, "-c", readerProgram)
	command.Env = []string{"PATH=/usr/bin:/bin", "KEYLIME_DIR=/nonexistent"}
	questions, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &reader{questions, bufio.NewReader(answers)}, command.Start()
})

// ask has Keylime read the configuration below root as its service would, and
// returns what the expression gives, or how reading it ends.
func ask(t *testing.T, root, expression string, environment ...string) (answer any, failure string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sudo make test")
	}
	r, err := keylimeReader()
	must(t, err)
	must(t, json.NewEncoder(r.questions).Encode(map[string]any{"root": root, "expression": expression, "environment": environment}))
	for { // its log goes there too
		line, err := r.answers.ReadString('\n')
		must(t, err)
		if said, is := strings.CutPrefix(line, "= "); is {
			var got struct {
				Answer  any
				Failure string
			}
			must(t, json.Unmarshal([]byte(said), &got))
			return got.Answer, got.Failure
		}
	}
}

// hosted is a root that the service user can read, with Keylime's own main files.
func hosted(t *testing.T) (string, func(mode Mode, profiles ...string) DropIn, func(DropIn)) {
	t.Helper()
	root, dir := config(t)
	for at := root; at != "/"; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && info.Mode().Perm()&0o005 != 0o005 {
			must(t, os.Chmod(at, 0o755))
		}
	}
	for _, component := range []string{"verifier", "registrar", "tenant", "agent"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(python(t))), "share/keylime", component+".conf"))
		must(t, err)
		writeConfig(t, root, component+".conf", string(text))
	}
	make := func(mode Mode, profiles ...string) DropIn {
		drop := in(mode, profiles...)
		drop.UID, drop.GID = somebody, somebody
		return drop
	}
	install := func(drop DropIn) {
		t.Helper()
		_, err := write(root, dir, drop)
		must(t, err)
	}
	return root, make, install
}

// options is what Keylime says of a component's TLS in one role.
func options(component, role string) string {
	return "web_util.get_tls_options('" + component + "', is_client=" + map[string]string{"server": "False", "client": "True"}[role] + ")"
}

func expected(certificate, bundle string) any {
	path := CertsDir + "/"
	return []any{[]any{path + certificate + ".crt", path + certificate + ".key", []any{path + bundle}, nil}, true}
}

var modes = []Mode{InDropIn, InMain}

// handed is the seed's way: values with remarks behind them, a CA by its bare name.
func handed(t *testing.T, root, component string, settings ...string) {
	t.Helper()
	path := filepath.Join(root, ConfigDir, component+".conf")
	text, err := os.ReadFile(path)
	must(t, err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		key, old, _ := strings.Cut(strings.TrimSpace(line), " = ")
		for at := 0; at < len(settings); at += 2 {
			if key == settings[at] {
				line = key + " = " + settings[at+1] + "   # Changed from: " + old + "\n"
			}
		}
		lines = append(lines, line)
	}
	writeConfig(t, root, component+".conf", strings.Join(lines, ""))
}

// TestParserAgrees compares our reading of odd files with Python's.
func TestParserAgrees(t *testing.T) {
	texts := []string{
		handMade, "[a]\r\nb = c\r\n", "[a]\rb = c\rd = e", "[a]\nb = c\n d\n\n e\n\n\nf = g\n", "[a]\n  b = c\n  d = e\n   f\n g = h\n",
		"[a]\nb:c=d\n# x\n ; y\n  z\ne = \n", "[a] # x\nb = c\n", "[a]]\nb = c ; d\n", "[DEFAULT]\nx = y\n[a]\nb = c\n", "[a]\nB = C\n\u00a0d = e\n", "[a]\nb = \x1cc\x1f\n",
		"[a]\nb = [x]\n [y]\nc = d\n", "[a]\nb = \"c\"\n\n[]\n", "[a]\nb\n c = d\n", "", "\n\n", "#\n", "[a]\n\n\n", "[a]\nb =\n c\n\td\n",
	}
	const program = `
import configparser, json, sys
found = []
for text in json.load(sys.stdin):
    parser = configparser.RawConfigParser()
    open(sys.argv[1], "w", newline="", encoding="utf-8").write(text)
    try:
        parser.read(sys.argv[1], encoding="utf-8")
        found.append({name: dict(values) for name, values in parser._sections.items()})
    except configparser.Error:
        found.append(None)
json.dump(found, sys.stdout)
`
	asked, err := json.Marshal(texts)
	must(t, err)
	command := exec.CommandContext(t.Context(), python(t), "-c", program, filepath.Join(t.TempDir(), "x"))
	command.Stdin = strings.NewReader(string(asked))
	output, err := command.Output()
	must(t, err)
	var answers []map[string]map[string]any
	must(t, json.Unmarshal(output, &answers))
	for at, text := range texts {
		got, err := parseSections(text)
		if (answers[at] == nil) != (err != nil) {
			t.Errorf("%q: we say %v, Python %v", text, err, answers[at])
			continue
		}
		delete(got, "DEFAULT")
		if err == nil && !cmp.Equal(got, answers[at]) {
			t.Errorf("%q: %s", text, cmp.Diff(answers[at], got))
		}
	}
}
