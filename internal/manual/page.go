// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Entry is one thing and what is to be said of it.
type Entry struct{ Name, Text string }

// About is what a page says that is not in the model.
type About struct {
	Date        time.Time
	Version     string
	Summary     string // one line, for whatis(1)
	Description string // paragraphs, with an empty line between
	Exits       []Entry
	Files       []Entry
	SeeAlso     []string // "name(section)"
}

// Page is the manual page of a program, in section 1: roff with the macros of man(7).
func Page(app *kong.Application, about About) string {
	var p page
	all := commands(app)
	p.line(".TH %s 1 %s %q", strings.ToUpper(roff(app.Name)), about.Date.UTC().Format("2006-01-02"), app.Name+" "+about.Version)
	p.section("NAME")
	p.line(`%s \- %s`, roff(app.Name), roff(about.Summary))
	p.section("SYNOPSIS")
	p.synopsis(app.Name, all)
	p.section("DESCRIPTION")
	p.paragraphs(about.Description)
	p.section("COMMANDS")
	for _, c := range all[1:] {
		p.command(c)
	}
	p.section("OPTIONS")
	p.text("These go with every command.")
	p.flags(all[0].flags)
	p.entries("EXIT STATUS", about.Exits)
	p.entries("FILES", about.Files)
	p.section("SEE ALSO")
	p.references(about.SeeAlso)
	return p.String()
}

// page is roff under way.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(name string) { p.line(".SH %s", name) }

// maxLine is how long lines of roff are, in bytes.
const maxLine = 78

// text writes running text.
func (p *page) text(words string) {
	line := ""
	for _, word := range strings.Fields(words) {
		word = roff(word)
		if line != "" && len(line)+1+len(word) > maxLine {
			p.line("%s", line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	p.line("%s", line)
}

// paragraphs writes text with an empty line between paragraphs.
func (p *page) paragraphs(words string) {
	for n, paragraph := range strings.Split(strings.TrimSpace(words), "\n\n") {
		if n > 0 {
			p.line(".PP")
		}
		p.text(paragraph)
	}
}

func (p *page) synopsis(name string, all []command) {
	first := true
	for _, c := range all {
		if len(c.children) > 0 {
			continue
		}
		if !first {
			p.line(".br")
		}
		first = false
		p.line(`.B %s %s`, roff(name), roff(c.path))
		if len(c.flags) > 0 {
			p.line(`[\fIoptions\fR]`)
		}
		for _, argument := range c.node.Positional {
			p.line(`[\fI%s\fR]`, roff(argumentName(argument)))
		}
	}
}

func (p *page) command(c command) {
	p.line(".SS %s", roff(c.path))
	p.text(c.node.Help)
	if c.node.Detail != "" {
		p.line(".PP")
		p.paragraphs(c.node.Detail)
	}
	for _, argument := range c.node.Positional {
		p.item(`\fI`+roff(argumentName(argument))+`\fR`, argument.Help)
	}
	p.flags(c.flags)
}

func (p *page) flags(flags []*kong.Flag) {
	for _, flag := range flags {
		var spelled []string
		for _, spelling := range spellings(flag) {
			spelled = append(spelled, `\fB`+roff(spelling)+`\fR`)
		}
		name := strings.Join(spelled, ", ")
		if takesValue(flag) {
			name += `=\fI` + roff(placeholder(flag)) + `\fR`
		}
		help := flag.Help
		if takesValue(flag) && flag.Default != "" {
			help += " The default is " + flag.Default + "."
		}
		p.item(name, help)
	}
}

// item writes one thing and its text; the name is roff already.
func (p *page) item(name, text string) {
	p.line(".TP")
	p.line("%s", name)
	p.text(text)
}

func (p *page) entries(section string, entries []Entry) {
	if len(entries) == 0 {
		return
	}
	p.section(section)
	for _, e := range entries {
		p.item(`\fB`+roff(e.Name)+`\fR`, e.Text)
	}
}

func (p *page) references(pages []string) {
	for n, name := range pages {
		title, section, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
		comma := ","
		if n == len(pages)-1 {
			comma = ""
		}
		p.line(`.BR %s (%s)%s`, roff(title), section, comma)
	}
}

// roff escapes what roff would take for its own: backslashes, hyphens that are to be
// copied, and a dot at the start of a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", "\\(ga", "'", "\\(aq", "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}
