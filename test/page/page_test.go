// SPDX-License-Identifier: Apache-2.0

package page

import (
	"strings"
	"testing"
)

// TestDifferences: a sample stands for its like, and for nothing else.
func TestDifferences(t *testing.T) {
	const id, other = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	for name, c := range map[string]struct {
		sample, answer string
		alike          bool
	}{
		"equal":            {`{"a": [1, true, "x"]}`, `{"a": [1, true, "x"]}`, true},
		"another value":    {`{"a": "off"}`, `{"a": "on"}`, false},
		"another number":   {`{"a": 120}`, `{"a": 121}`, false},
		"another type":     {`{"a": 1}`, `{"a": "1"}`, false},
		"null for a list":  {`{"a": []}`, `{"a": null}`, false},
		"a key more":       {`{"a": 1}`, `{"a": 1, "b": 2}`, false},
		"a key less":       {`{"a": 1, "b": 2}`, `{"a": 1}`, false},
		"a longer list":    {`{"a": [1]}`, `{"a": [1, 2]}`, false},
		"another time":     {`{"a": "2026-11-24T07:55:25Z"}`, `{"a": "2027-01-01T00:00:00.5Z"}`, true},
		"no time":          {`{"a": "2026-11-24T07:55:25Z"}`, `{"a": ""}`, false},
		"another digest":   {`{"a": "` + id + `"}`, `{"a": "` + other + `"}`, true},
		"no digest":        {`{"a": "` + id + `"}`, `{"a": "abc"}`, false},
		"a TPM ID":         {`{"a": "` + id + `"}`, `{"a": "sha256-` + id + `"}`, false},
		"a digest as key":  {`{"` + id + `": 1}`, `{"` + other + `": 1}`, true},
		"left open":        {`{"a": "b.AAAA…"}`, `{"a": "b.BBBB-CC"}`, true},
		"left open, other": {`{"a": "b.AAAA…"}`, `{"a": "s.BBBB"}`, false},
		"envelope":         {`{"data": {}}`, `{"data": {}, "request_id": "x", "warnings": null}`, true},
		"a warning":        {`{"data": {}}`, `{"data": {}, "warnings": ["x"]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			sample, err := Parse(c.sample)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := Parse(c.answer)
			if err != nil {
				t.Fatal(err)
			}
			if d := Differences(sample, answer); (len(d) == 0) != c.alike {
				t.Errorf("%s stands for %s: %t, %v", c.sample, c.answer, !c.alike, d)
			}
		})
	}
}

// TestBlocks: blocks are found where they are, with what they are about.
func TestBlocks(t *testing.T) {
	page := "# A\n## B\n### Sample payload\n```json\n{}\n```\n### C\n1. x\n   ```sh\n   y\n   ```\n"
	found := Blocks(page, "Sample payload")
	if len(found) != 2 {
		t.Fatalf("%+v", found)
	}
	for i, want := range []Block{
		{Section: "B", Part: "Sample payload", Lang: "json", Text: "{}\n", Line: 4},
		{Section: "C", Lang: "sh", Text: "   y\n", Line: 9},
	} {
		got := found[i]
		if page[got.From:got.To] != want.Text || !strings.HasSuffix(page[:got.From], "```"+want.Lang+"\n") {
			t.Errorf("block %d is at %d to %d", i, got.From, got.To)
		}
		got.From, got.To = 0, 0
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
