// SPDX-License-Identifier: Apache-2.0

// Command sum reads `go test -json` on standard input, prints a line per
// package and the output of what failed, and ends in "N passed, N failed",
// summed over everything it read. It exits 1 when anything failed or nothing
// passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

// tally counts results and keeps the output of what has not yet passed.
type tally struct {
	passed, failed, skipped int
	output                  map[string]*strings.Builder
}

func main() {
	t := tally{output: map[string]*strings.Builder{}}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Println(lines.Text()) // a build error, or a runner's own words
			continue
		}
		t.add(e)
	}
	if t.skipped > 0 {
		fmt.Printf("%d skipped: a test that cannot run here must fail\n", t.skipped)
		t.failed += t.skipped
	}
	fmt.Printf("%d passed, %d failed\n", t.passed, t.failed)
	if t.failed > 0 || t.passed == 0 || lines.Err() != nil {
		os.Exit(1)
	}
}

func (t *tally) add(e event) {
	key := e.Package + " " + e.Test
	switch {
	case e.Action == "output":
		if t.output[key] == nil {
			t.output[key] = new(strings.Builder)
		}
		t.output[key].WriteString(e.Output)
		return
	case e.Action == "build-output":
		fmt.Print(e.Output)
		return
	case e.Action == "build-fail":
		t.failed++
		return
	case e.Test != "":
		t.count(e)
	case e.Action == "pass":
		fmt.Printf("ok    %6.1fs %s\n", e.Elapsed, e.Package)
	case e.Action == "fail":
		fmt.Printf("FAIL  %6.1fs %s\n", e.Elapsed, e.Package)
		t.show(key)
		t.failed++
	default:
		return
	}
	if e.Action != "run" && e.Action != "pause" && e.Action != "cont" {
		delete(t.output, key)
	}
}

func (t *tally) count(e event) {
	switch e.Action {
	case "pass":
		t.passed++
	case "skip":
		t.skipped++
		fmt.Printf("SKIP %s %s\n", e.Package, e.Test)
	case "fail":
		t.failed++
		fmt.Printf("FAIL %s %s\n", e.Package, e.Test)
		t.show(e.Package + " " + e.Test)
	}
}

func (t *tally) show(key string) {
	if b := t.output[key]; b != nil {
		fmt.Print(b.String())
	}
}
