// SPDX-License-Identifier: Apache-2.0

package unitfile

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	text := "; about it\n[Unit]\nDescription = a \\\n# between\n  b\nthis is no setting\nBefore=\r\n[Service]\nExecStart=/bin/x a=b\\"
	want := []Setting{{"Unit", "Description", "a  b"}, {"Unit", "Before", ""}}
	if got := Parse(text); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestTemplate(t *testing.T) {
	for name, want := range map[string][2]string{
		"a@b.service": {"a@.service", "b"}, "a@b.c.service": {"a@.service", "b.c"}, "a.service": {}, "a@.service": {}, "a@b": {},
	} {
		if file, instance := Template(name); [2]string{file, instance} != want {
			t.Errorf("%s: %q, %q", name, file, instance)
		}
	}
}

// FuzzParse: no setting is longer than the text, or holds the end of a line.
func FuzzParse(f *testing.F) {
	f.Add("[Unit]\nA=\\\nb\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range Parse(text) {
			if strings.Contains(s.Section+s.Key+s.Value, "\n") || len(s.Key)+len(s.Value) > len(text) {
				t.Errorf("%q out of %q", s, text)
			}
		}
	})
}
