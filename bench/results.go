// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// write writes both forms of the results below the module.
func (b *bench) write(page string) error {
	text, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.tools.Module, "bench")
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(page), 0o644)
}

// page is the results for people.
func (b *bench) page(ctx context.Context) string {
	var page strings.Builder
	page.WriteString("# Measurements\n\n")
	page.WriteString(machine(ctx, b.data))
	page.WriteString("\nRepeat with `make bench`, or a part of it in minutes with `make bench-short`. " +
		"Each ratio is the median of pairs taken in turn in one run; absolute figures belong to this machine.\n")
	if b.short {
		page.WriteString("\nThis was a short run: fewer pairs, and a herd of 1,000 (its part, 100).\n")
	}
	for _, s := range sections {
		b.table(&page, s)
	}
	if len(b.remarks) > 0 {
		page.WriteString("\n## Beside the figures\n\n")
	}
	for _, line := range b.remarks {
		fmt.Fprintf(&page, "- %s\n", line)
	}
	return page.String()
}

func (b *bench) table(page *strings.Builder, s section) {
	head := fmt.Sprintf("\n## %s\n\n%s\n\n| figure | value | wanted | meaning |\n|---|---|---|---|\n", s.title, s.intro)
	for _, f := range s.figures {
		value, measured := b.figures[f.name]
		if !measured {
			continue
		}
		fmt.Fprintf(page, "%s| `%s` | %.3g | %s | %s |\n", head, f.name, value, f.wanted(value), f.about)
		head = ""
	}
}

// wanted is the bound of a figure and whether its value is within.
func (f figure) wanted(value float64) string {
	verdict := "met"
	if !f.met(value) {
		verdict = "**missed**"
	}
	switch {
	case !f.bounded():
		return ""
	case f.least > 0:
		return fmt.Sprintf("≥ %g: %s", f.least, verdict)
	default:
		return fmt.Sprintf("≤ %g: %s", f.most, verdict)
	}
}
