// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// requests are those that a renewal makes, in their order, and the step that each is of.
var requests = []struct {
	kind   string
	number int
	step   string
}{{"challenge", 1, "challenge"}, {"login", 1, "login"}, {"sign/", 1, "sign"}, {"sign/", 2, "sign"}}

// TestPassing: faults that are over at once, on hosts that take turns.
func TestPassing(t *testing.T) {
	ctx, l, all := newLab(t, 3*time.Minute, "one", "two", "three", "four")
	t.Run("line", func(t *testing.T) { l.lineCut(ctx, t, all) })
	t.Run("TPM", func(t *testing.T) { tpmReset(ctx, t, all, false, known) })
}

// lineCut: a line that is cut at any place, and is there again, costs no attempt. What
// was asked and not heard is asked once more, and nothing more often.
func (l *lab) lineCut(ctx context.Context, t *testing.T, all []*machine) {
	cuts := []cut{{place: inHello}}
	for _, r := range requests {
		for _, at := range []place{inRequest, beforeAnswer, inAnswer, afterAnswer} {
			cuts = append(cuts, cut{request: r.kind, number: r.number, place: at})
		}
	}
	for some := range slices.Chunk(cuts, len(all)) {
		for i, c := range some {
			all[i].line.arm(c)
			all[i].run(ctx, t)
		}
		for i, c := range some {
			t.Run(c.String(), func(t *testing.T) {
				m := all[i]
				m.await(ctx, t, 30*time.Second, "msg=renewed")
				if !m.line.over() {
					t.Fatal("the line was not cut")
				}
				m.wantRenewed(ctx, t)
				m.end(ctx, t)
				if logins, signed := m.line.asked("login"), m.line.asked("sign/"); logins > 2 || signed > 3 {
					t.Errorf("%d logins, %d certificates", logins, signed)
				}
			})
		}
	}
	if kept := l.keptTokens(ctx, t); kept > 0 {
		t.Errorf("OpenBao keeps %d tokens of the hosts", kept)
	}
}

// String names the cut.
func (c cut) String() string {
	how := "reset"
	if c.silent {
		how = "silence"
	}
	if c.request == "" {
		return how + " " + string(c.place)
	}
	return fmt.Sprintf("%s %s, %s %d", how, c.place, c.request, c.number)
}
