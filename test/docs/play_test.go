// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"flag"
	"os"
	"strings"
	"testing"

	"funlab.casa/omen/test/page"
)

// parts are the headings below which a request and its answer stand.
var parts = []string{"Parameters", "Sample payload", "Sample request", "Sample response"}

var update = flag.Bool("update", false, "write the answers in the pages anew")

// play is one reading of a page.
type play struct {
	*stage
	shell *shell
	// before prepares what the requests of a section are about. It is called before
	// each of them, so that the same can be said twice: to bao and by HTTP.
	before map[string]func()

	section string // of the request
	script  string // the last request
	sent    string // the payload
	answer  string // to the last request
	changes []change
}

// change is a sample to write anew.
type change struct {
	block page.Block
	text  string
}

// perform plays all blocks of a page in order.
func (p *play) perform(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	for _, b := range page.Blocks(string(text), parts...) {
		before := t.Failed()
		p.block(t, b)
		if t.Failed() && !before {
			t.Logf("%s:%d, %s", name, b.Line, b.Section)
		}
	}
	if *update {
		updated := string(text)
		for i := len(p.changes) - 1; i >= 0; i-- {
			c := p.changes[i]
			updated = updated[:c.block.From] + c.text + updated[c.block.To:]
		}
		check(t, os.WriteFile(name, []byte(updated), 0o644))
	}
}

func (p *play) block(t *testing.T, b page.Block) {
	t.Helper()
	switch {
	case b.Lang == "json" && b.Part == "Sample payload":
		p.sent = b.Text
	case b.Lang == "json":
		p.compare(t, b)
	case b.Lang == "sh":
		p.request(t, b.Section, b.Text)
	case b.Lang == "console":
		p.converse(t, b)
	case b.Lang != "hcl" && b.Lang != "text":
		t.Errorf("line %d: blocks of %q are not known", b.Line, b.Lang)
	}
}

// request runs what a reader would, after what has to be there.
func (p *play) request(t *testing.T, section, script string) {
	t.Helper()
	p.section = section
	if prepare := p.before[section]; prepare != nil {
		prepare()
	}
	if p.sent != "" {
		p.shell.payload(t, p.sent)
	}
	out, err := p.shell.run(t, script)
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
	p.script, p.answer = script, p.public(out)
}

// public is an answer with the addresses of the pages.
func (p *play) public(text string) string {
	text = strings.ReplaceAll(text, p.node.Address, "https://spire.funlab.casa:8200")
	return strings.ReplaceAll(text, "127.0.0.1", "10.10.2.70")
}

func (p *play) compare(t *testing.T, b page.Block) {
	t.Helper()
	answer, err := page.Parse(p.answer)
	if err != nil {
		t.Error(err)
		return
	}
	if *update {
		p.changes = append(p.changes, change{b, render("", answer, "") + "\n"})
		return
	}
	sample, err := page.Parse(b.Text)
	if err != nil {
		t.Error(err)
		return
	}
	for _, d := range page.Differences(sample, answer) {
		t.Error(d)
	}
}

// converse types the lines that begin with "$ ", and compares what is printed
// with the lines below.
func (p *play) converse(t *testing.T, b page.Block) {
	t.Helper()
	var written strings.Builder
	for i, exchange := range strings.Split("\n"+b.Text, "\n$ ") {
		if i == 0 {
			continue // typed by root, on a host
		}
		command, sample, _ := strings.Cut(exchange, "\n")
		p.request(t, b.Section, command)
		written.WriteString("$ " + command + "\n" + strings.TrimRight(p.answer, "\n") + "\n\n")
		if !*update {
			for _, d := range page.DifferentTable(sample, p.answer) {
				t.Error(d)
			}
		}
	}
	if *update && written.Len() > 0 {
		p.changes = append(p.changes, change{b, strings.TrimRight(written.String(), "\n") + "\n"})
	}
}
