// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"funlab.casa/omen/internal/alarm"
)

// A page is text in two columns, for a terminal of 80.
type page struct {
	w      io.Writer
	colour bool
}

const (
	pageWidth  = 80
	labelWidth = 14
)

// row writes a label and the lines of its text, each broken between words where it
// is too long. A single word that is too long, as a path can be, stays whole.
func (p page) row(label string, lines ...string) {
	for _, line := range lines {
		for _, part := range wrap(printable(line), pageWidth-labelWidth) {
			fmt.Fprintf(p.w, "%-*s%s\n", labelWidth, label, part)
			label = ""
		}
	}
}

func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// inks are the colours of levels (ECMA-48: SGR).
var inks = map[alarm.Level]string{alarm.None: "32", alarm.Info: "36", alarm.Warning: "33", alarm.Critical: "1;31"}

// level writes the one word that is read first.
func (p page) level(level alarm.Level) {
	word := strings.ToUpper(level.String())
	if level == alarm.None {
		word = "OK"
	}
	if p.colour {
		word = "\x1b[" + inks[level] + "m" + word + "\x1b[0m"
	}
	fmt.Fprintf(p.w, "%-*s%s\n", labelWidth, "status", word)
}
