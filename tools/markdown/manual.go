// SPDX-License-Identifier: Apache-2.0

package markdown

import (
	"fmt"
	"strings"
	"time"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	table "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

// Title is what a manual page says of itself.
type Title struct {
	Name    string
	Section int
	Date    time.Time
	Version string
	Summary string
	SeeAlso []string // "name(section)"
}

// Manual is a page in roff, with the macros of man(7).
func Manual(source []byte, title Title) ([]byte, error) {
	w := writer{source: source}
	w.line(`.TH %s %d %s %q`, escape(strings.ToUpper(title.Name)), title.Section, title.Date.UTC().Format(time.DateOnly), title.Version)
	w.line(".SH NAME\n%s \\- %s", escape(title.Name), escape(title.Summary))
	w.line(".SH DESCRIPTION")
	w.fresh = true
	document := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(source))
	for node := document.FirstChild(); node != nil; node = node.NextSibling() {
		if err := w.block(node); err != nil {
			return nil, err
		}
	}
	w.line(".SH SEE ALSO")
	for n, page := range title.SeeAlso {
		name, section, _ := strings.Cut(strings.TrimSuffix(page, ")"), "(")
		w.line(".BR %s (%s)%s", escape(name), section, strings.Repeat(",", min(1, len(title.SeeAlso)-1-n)))
	}
	return []byte(w.out.String()), w.err
}

type writer struct {
	source []byte
	out    strings.Builder
	fresh  bool // behind a heading, where a paragraph begins by itself
	err    error
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

// block writes a heading, paragraph, list, table or example.
func (w *writer) block(node ast.Node) error {
	switch n := node.(type) {
	case *ast.Heading:
		w.heading(n)
		return w.err
	case *ast.Paragraph, *ast.TextBlock:
		w.begin()
		w.flow(w.inline(n))
	case *ast.List:
		return w.list(n)
	case *ast.FencedCodeBlock, *ast.CodeBlock:
		w.example(n)
	case *table.Table:
		w.table(n)
	default:
		return fmt.Errorf("no way to say a %s in a manual page", node.Kind())
	}
	w.fresh = false
	return w.err
}

// heading leaves out the page's own, which NAME says.
func (w *writer) heading(n *ast.Heading) {
	switch {
	case n.Level == 2:
		w.line(".SH %s", w.inline(n))
	case n.Level > 2:
		w.line(".SS %s", w.inline(n))
	}
	w.fresh = true
}

func (w *writer) begin() {
	if !w.fresh {
		w.line(".PP")
	}
}

func (w *writer) list(n *ast.List) error {
	for item := n.FirstChild(); item != nil; item = item.NextSibling() {
		if n.IsOrdered() || item.ChildCount() != 1 {
			return fmt.Errorf("no way to say a %s with numbers or more than one paragraph", n.Kind())
		}
		w.line(`.IP \(bu 2`)
		w.flow(w.inline(item.FirstChild()))
	}
	w.fresh = false
	return w.err
}

func (w *writer) example(n ast.Node) {
	w.begin()
	w.line(".RS 4\n.nf")
	for i := range n.Lines().Len() {
		at := n.Lines().At(i)
		line := escape(strings.TrimRight(string(at.Value(w.source)), "\n"))
		if strings.HasPrefix(line, ".") {
			line = `\&` + line
		}
		w.line("%s", line)
	}
	w.line(".fi\n.RE")
}
