// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
)

// A stampede counts hosts, not calls, and says of each call why it brought nothing.
func TestStampede(t *testing.T) {
	s := &stampede{reasons: map[string]int{}, took: 2 * time.Second}
	for i := range 100 {
		s.waited = append(s.waited, time.Duration(i+1)*10*time.Millisecond)
	}
	smooth, begun, late := &course{attempts: 1}, &course{attempts: 1, over: 1}, &course{attempts: 3, over: 1}
	begun.note(&bao.Error{Op: "login", Kind: bao.KindUnreachable, Message: "write tcp 127.0.0.1:1->127.0.0.1:2: no answer in time"})
	late.note(&bao.Error{Op: "challenge", Kind: bao.KindFailing, Status: 500})
	late.note(&bao.Error{Op: "login", Kind: bao.KindRefused, Status: 403, Rule: attest.RuleFreshness})
	for _, c := range []*course{smooth, begun, late} {
		s.add(c)
	}
	if s.refused != 1 || s.again != 2 || s.twice != 1 || len(s.reasons) != 3 {
		t.Errorf("%d refused, %d again, %d twice, %v", s.refused, s.again, s.twice, s.reasons)
	}
	if s.percentile(50) != 510*time.Millisecond || s.percentile(99) != time.Second || s.percentile(100) != time.Second || s.perHost() != 0.02 {
		t.Errorf("half %s, 99 %s, all %s, %f s a host", s.percentile(50), s.percentile(99), s.percentile(100), s.perHost())
	}
	for _, part := range []string{"all in after 2.00 s", "1 told an error", "1 × login: refused (HTTP 403) freshness", "1 × login: no answer in time"} {
		if !strings.Contains(s.String(), part) {
			t.Errorf("%q does not say %q", s, part)
		}
	}
}

// The figures are medians over the rounds, but the worst of what was refused.
func TestFigures(t *testing.T) {
	r := rounds{}
	if r.figures() != nil {
		t.Error("figures of nothing")
	}
	for _, seconds := range []int{30, 90, 40} {
		part := &stampede{took: 3 * time.Second, waited: make([]time.Duration, 1000)}
		whole := &stampede{took: time.Duration(seconds) * time.Second, waited: make([]time.Duration, 10_000), refused: seconds / 90}
		r.add(part, whole)
	}
	got := r.figures()
	if got["herd_10000_seconds"] != 40 || got["herd_10000_refused"] != 1 {
		t.Errorf("figures %v", got)
	}
	if growth := got["herd_cost_growth_1000_to_10000"]; growth < 1.33 || growth > 1.34 {
		t.Errorf("growth %f, want 4/3", growth)
	}
}

// The state of a process, whatever its name is; this one's is read from the kernel.
func TestProcessorTime(t *testing.T) {
	used, err := parseStat("12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 1 0 100 0 0")
	if err != nil || used != 3*time.Second {
		t.Errorf("%s: %v, want 3s", used, err)
	}
	for _, text := range []string{"", "12 (a) S 1", "12 (a) S 1 12 12 0 -1 4194560 100 0 0 0 x 50 7"} {
		if _, err := parseStat(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
	before, err := processorTimeOf(os.Getpid())
	for deadline := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(deadline); {
		var after time.Duration
		if after, err = processorTimeOf(os.Getpid()); after > before {
			return
		}
	}
	t.Errorf("no time passes: %v", err)
}
