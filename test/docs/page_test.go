// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"regexp"
	"strings"
)

// block is a fenced block of a page.
type block struct {
	section    string // heading of level 2 or 3 that is not one of the parts of a request
	part       string // "Sample payload" or the like, or ""
	lang, text string
	line       int // of the fence, from 1
	from, to   int // of text in the page, in bytes
}

// parts are the headings below which a request and its answer stand.
var parts = []string{"Parameters", "Sample payload", "Sample request", "Sample response"}

var fence = regexp.MustCompile("^( *)```([a-z]*)$")

// blocks takes a page apart.
func blocks(page string) []block {
	var found []block
	var now block
	inside, offset, number := false, 0, 0
	for line := range strings.Lines(page) {
		number++
		text := strings.TrimRight(line, "\n")
		if m := fence.FindStringSubmatch(text); m != nil {
			if inside = !inside; inside {
				now.lang, now.line, now.from = m[2], number, offset+len(line)
			} else {
				now.to = offset
				now.text = page[now.from:now.to]
				found = append(found, now)
			}
		} else if !inside {
			now.heading(text)
		}
		offset += len(line)
	}
	return found
}

func (b *block) heading(line string) {
	marks, title, ok := strings.Cut(line, " ")
	if !ok || strings.Trim(marks, "#") != "" || len(marks) < 2 {
		return
	}
	for _, part := range parts {
		if title == part {
			b.part = part
			return
		}
	}
	b.section, b.part = title, ""
}
