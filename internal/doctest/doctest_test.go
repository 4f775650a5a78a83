// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// root is the repository, seen from this package.
const root = "../.."

// page reads a file of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is the part of a page below a heading, up to the next one of its
// level or a higher one.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	level := strings.IndexFunc(heading, func(r rune) bool { return r != '#' })
	_, rest, found := strings.Cut("\n"+text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("no heading %q", heading)
	}
	end := regexp.MustCompile(`(?m)^#{1,` + strconv.Itoa(level) + `} `).FindStringIndex(outsideCode(rest))
	if end == nil {
		return rest
	}
	return rest[:end[0]]
}

var codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```[ \t]*$")

// outsideCode replaces code blocks by spaces, so that positions stay what they
// are.
func outsideCode(text string) string {
	return codeBlock.ReplaceAllStringFunc(text, func(block string) string {
		b := []byte(block)
		for i := range b {
			if b[i] != '\n' {
				b[i] = ' '
			}
		}
		return string(b)
	})
}

// rows are the rows of all tables in text, each as its cells. Head and rule
// lines are among them.
func rows(text string) [][]string {
	var found [][]string
	for line := range strings.Lines(outsideCode(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		line = strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00")
		var cells []string
		for cell := range strings.SplitSeq(line, "|") {
			cells = append(cells, strings.TrimSpace(strings.ReplaceAll(cell, "\x00", "|")))
		}
		found = append(found, cells)
	}
	return found
}

var codeWord = regexp.MustCompile("`([^`]+)`")

// words are the words of a cell that stand in code marks.
func words(cell string) []string {
	var found []string
	for _, match := range codeWord.FindAllStringSubmatch(cell, -1) {
		found = append(found, match[1])
	}
	return found
}

// rowOf is the row whose first cell has word in code marks, nil without one.
func rowOf(text, word string) []string {
	for _, row := range rows(text) {
		if slices.Contains(words(row[0]), word) {
			return row
		}
	}
	return nil
}

// pages are all Markdown files of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && path != root
		if d.IsDir() && (hidden || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks: every link within the repository leads to a file, and to a heading
// that is in it.
func TestLinks(t *testing.T) {
	for _, path := range pages(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		prose := codeWord.ReplaceAllString(outsideCode(string(text)), "")
		for _, match := range link.FindAllStringSubmatch(prose, -1) {
			if !strings.Contains(match[1], "://") {
				checkLink(t, path, match[1])
			}
		}
	}
}

func checkLink(t *testing.T, from, to string) {
	t.Helper()
	name, anchor, _ := strings.Cut(to, "#")
	target := from
	if name != "" {
		target = filepath.Join(filepath.Dir(from), name)
	}
	info, err := os.Stat(target)
	if err != nil {
		t.Errorf("%s: link to %s: %v", from, to, err)
		return
	}
	if anchor == "" || info.IsDir() {
		return
	}
	text, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(anchors(string(text)), anchor) {
		t.Errorf("%s: link to %s: no such heading", from, to)
	}
}

var headingLine = regexp.MustCompile(`(?m)^#+ (.*)$`)

// anchors are the names under which a page's headings can be linked to.
func anchors(text string) []string {
	var all []string
	for _, match := range headingLine.FindAllStringSubmatch(outsideCode(text), -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, match[1]))
	}
	return all
}
