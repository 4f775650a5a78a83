// SPDX-License-Identifier: Apache-2.0

package rival_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// maze lays scripts of which each names all, and returns a command that does too.
func (h host) maze(size int) (command string) {
	h.t.Helper()
	const count = 64
	var all strings.Builder
	for i := range count {
		fmt.Fprintf(&all, " /m/%d", i)
	}
	content := "#!/bin/sh\n" + all.String() + "\n" + strings.Repeat("echo of no use\n", size/15)
	for i := range count {
		h.write(fmt.Sprintf("/m/%d", i), content, 0o755)
	}
	return strings.TrimSpace(all.String())
}

// took is how long a search takes.
func (h host) took() time.Duration {
	h.t.Helper()
	begin := time.Now()
	h.find()
	return time.Since(begin)
}

// looks is how often a search looks whether it should end: as often as it judges.
func (h host) looks() int {
	h.t.Helper()
	const enough = 1 << 30
	left := enough
	_, err := h.search().Find(ending{h.t.Context(), &left})
	h.must(err)
	return enough - left
}

// A script is judged once, however many lines and scripts name it.
func TestScriptsAreJudgedOnce(t *testing.T) {
	h := newHost(t)
	line := "@daily root " + h.maze(1<<10) + "\n"
	h.write("/etc/crontab", line, 0o644)
	one := h.looks()
	if one < 128 {
		t.Fatalf("looks %d times while it judges 64 scripts", one)
	}
	h.write("/etc/crontab", strings.Repeat(line, 50), 0o644)
	if fifty := h.looks(); fifty > 2*one {
		t.Errorf("one line costs %d looks, fifty lines %d", one, fifty)
	}
}

// The settings of a table are judged once, not again for each line.
func TestSettingsAreJudgedOnce(t *testing.T) {
	h := newHost(t)
	h.users()
	h.spool("nobody", nobodyUID, strings.Repeat("A=b\n@daily true\n", 1<<10))
	few := max(h.took(), 50*time.Millisecond)
	h.spool("nobody", nobodyUID, strings.Repeat("A=b\n@daily true\n", 16<<10))
	if many := h.took(); many > 40*few {
		t.Errorf("a table %v, one 16 times as long %v", few, many)
	}
}

// Of what a user names who cannot renew nothing is read, so that no such user decides
// how long a search takes, or spends what others need.
func TestScriptsOfAUserAreNotRead(t *testing.T) {
	h := newHost(t)
	h.users()
	line := h.maze(16 << 10)
	h.write("/m/0", script, 0o755)
	h.spool("nobody", nobodyUID, "@daily "+line+"\n")
	h.write("/etc/cron.d/a", "@daily nobody "+line+"\n", 0o644)
	if found := h.find(); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	h.spool("keylime", keylimeUID, "@daily "+line+"\n")
	if r := h.one(); !r.Active {
		t.Errorf("got %+v", r)
	}
}

// What root has cron do is looked at however much the users have.
func TestUsersTablesAreReadLast(t *testing.T) {
	for name, uid := range map[string]int{"who cannot renew": nobodyUID, "who can": keylimeUID} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.users()
			h.write("/etc/cron.hourly/renew", script, 0o755)
			h.spool("root", 0, "@daily "+copies)
			long := strings.Repeat("#"+strings.Repeat("x", 62)+"\n", 4<<10)
			for i := range 257 { // more than a search reads
				h.spool(fmt.Sprintf("a%d", i), uid, long)
			}
			found, err := h.search().Find(t.Context())
			if len(found) != 2 || !found[0].Active || !found[1].Active {
				t.Errorf("found %v", found)
			}
			if err == nil || !strings.Contains(err.Error(), "too much to read") {
				t.Errorf("not told: %v", err)
			}
		})
	}
}

// ending is a context that ends once it was looked at so often.
type ending struct {
	context.Context
	looks *int
}

func (e ending) Err() error {
	*e.looks--
	if *e.looks < 0 {
		return context.Canceled
	}
	return nil
}

// A search ends in the midst of what it has read already, and says so.
func TestEndInTheMidst(t *testing.T) {
	h := newHost(t)
	h.write("/etc/crontab", "@daily root "+h.maze(1<<10)+"\n", 0o644)
	for _, looks := range []int{0, 1, 50, 150, 1000} {
		left := looks
		_, err := h.search().Find(ending{t.Context(), &left})
		if ended := left < 0; ended != errors.Is(err, context.Canceled) {
			t.Errorf("after %d looks, ended %v: %v", looks, ended, err)
		}
	}
}
