// SPDX-License-Identifier: Apache-2.0

package markdown

import (
	"fmt"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// inline is the text of a node, as roff in one line.
func (w *writer) inline(node ast.Node) string {
	var out strings.Builder
	for child := node.FirstChild(); child != nil; child = child.NextSibling() {
		switch n := child.(type) {
		case *ast.Text:
			out.WriteString(escape(unescaped(string(n.Segment.Value(w.source)))))
			if n.SoftLineBreak() || n.HardLineBreak() {
				out.WriteString(" ")
			}
		case *ast.String:
			out.WriteString(escape(string(n.Value)))
		case *ast.CodeSpan:
			out.WriteString(`\fB` + w.code(n) + `\fR`)
		case *ast.Emphasis:
			font := `\fI`
			if n.Level == 2 {
				font = `\fB`
			}
			out.WriteString(font + w.inline(n) + `\fR`)
		case *ast.Link:
			out.WriteString(w.inline(n))
		case *ast.AutoLink:
			out.WriteString(escape(string(n.URL(w.source))))
		default:
			w.err = fmt.Errorf("no way to say a %s in a manual page", child.Kind())
		}
	}
	return out.String()
}

func (w *writer) code(n *ast.CodeSpan) string {
	var out strings.Builder
	for child := n.FirstChild(); child != nil; child = child.NextSibling() {
		if part, ok := child.(*ast.Text); ok {
			out.WriteString(escape(string(part.Segment.Value(w.source))))
		}
	}
	return out.String()
}

// unescaped takes away the backslash before what would have a meaning.
func unescaped(words string) string {
	return strings.NewReplacer(`\|`, "|", `\*`, "*", `\_`, "_", `\<`, "<", `\[`, "[", `\]`, "]", "\\`", "`").Replace(words)
}

// maxLine is how long lines of running text are, in bytes.
const maxLine = 78

// flow writes running text.
func (w *writer) flow(words string) {
	line := ""
	for _, word := range strings.Fields(words) {
		if line != "" && len(line)+1+len(word) > maxLine {
			w.text(line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	w.text(line)
}

func (w *writer) text(line string) {
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	w.line("%s", line)
}

// escape is text with what roff would take for its own.
func escape(words string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(words)
}
