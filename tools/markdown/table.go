// SPDX-License-Identifier: Apache-2.0

package markdown

import (
	"strings"

	"github.com/yuin/goldmark/ast"
	table "github.com/yuin/goldmark/extension/ast"
)

// table writes a row as a term and what is said of it. The last column is the text;
// those between are told by their heading.
func (w *writer) table(n *table.Table) {
	var head []string
	for row := n.FirstChild(); row != nil; row = row.NextSibling() {
		cells := w.cells(row)
		if head == nil {
			head = cells
			continue
		}
		w.line(".TP\n\\fB%s\\fR", strings.ReplaceAll(strings.ReplaceAll(cells[0], `\fB`, ""), `\fR`, ""))
		words := []string{cells[len(cells)-1]}
		for at := 1; at < len(cells)-1; at++ {
			switch cells[at] {
			case "":
			case "required":
				words = append(words, "Required.")
			default:
				words = append(words, head[at]+": "+cells[at]+".")
			}
		}
		w.flow(strings.Join(words, " "))
	}
}

func (w *writer) cells(row ast.Node) []string {
	var cells []string
	for cell := row.FirstChild(); cell != nil; cell = cell.NextSibling() {
		cells = append(cells, w.inline(cell))
	}
	return cells
}
