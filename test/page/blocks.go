// SPDX-License-Identifier: Apache-2.0

package page

import (
	"regexp"
	"slices"
	"strings"
)

// A Block is a fenced block of a page.
type Block struct {
	Section    string // heading of level 2 or below that is not one of the parts
	Part       string // one of the parts, or ""
	Lang, Text string
	Line       int // of the fence, from 1
	From, To   int // of Text in the page, in bytes
}

var fence = regexp.MustCompile("^( *)```([a-z]*)$")

// Blocks takes a page apart. Parts are headings that do not begin a section but
// say what a block in it is.
func Blocks(page string, parts ...string) []Block {
	var found []Block
	var now Block
	inside, offset, number := false, 0, 0
	for line := range strings.Lines(page) {
		number++
		text := strings.TrimRight(line, "\n")
		if m := fence.FindStringSubmatch(text); m != nil {
			if inside = !inside; inside {
				now.Lang, now.Line, now.From = m[2], number, offset+len(line)
			} else {
				now.To = offset
				now.Text = page[now.From:now.To]
				found = append(found, now)
			}
		} else if !inside {
			now.heading(text, parts)
		}
		offset += len(line)
	}
	return found
}

func (b *Block) heading(line string, parts []string) {
	marks, title, ok := strings.Cut(line, " ")
	if !ok || strings.Trim(marks, "#") != "" || len(marks) < 2 {
		return
	}
	if slices.Contains(parts, title) {
		b.Part = title
		return
	}
	b.Section, b.Part = title, ""
}
