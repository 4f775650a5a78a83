// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// minute is what OpenBao does once a minute.
func (f *fleet) minute() {
	f.t.Helper()
	check(f.t, f.b.everyMinute(f.t.Context(), &logical.Request{Storage: f.s}))
}

// again is the mount as its next process has it.
func (f *fleet) again() *fleet {
	next := &fleet{mount: newMount(f.t, f.s, "mount-1"), vendor: f.vendor}
	next.b.wallClock = f.b.wallClock
	next.b.challenges.now = func() time.Duration { return time.Duration(next.clock.Add(1)) }
	return next
}

func (f *fleet) lastSeen(host string) string {
	f.t.Helper()
	return f.read("host/" + host)["last_seen"].(string)
}

// When a host was last seen costs no write of its own: it goes to the storage
// with all others once a minute, and the next process reads it there.
func TestLastSeen(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
		f.b.wallClock = func() time.Time { return now }
		tpm := f.tpm()
		f.enrol("spire", tpm)
		f.enrol("auth", f.tpm())
		f.gets(tpm, to(byAllowList))
		before := f.content()
		for range 50 {
			now = now.Add(time.Second)
			f.gets(tpm, to(byAllowList))
		}
		f.wantContent(before)
		const seen = "2030-01-02T03:04:55Z"
		if got := f.lastSeen("spire"); got != seen {
			t.Errorf("last seen %s", got)
		}
		if got := f.lastSeen("auth"); got != "" {
			t.Errorf("seen %s and never was", got)
		}
		if got := f.again().lastSeen("spire"); got != "" {
			t.Errorf("another process knows %s", got)
		}
		f.minute()
		if got := f.again().lastSeen("spire"); got != seen {
			t.Errorf("after a minute another process knows %s", got)
		}
		info := f.must(logical.ListOperation, "hosts/detailed", nil).Data["key_info"].(map[string]any)
		if got := info["spire"].(map[string]any)["last_seen"]; got != seen {
			t.Errorf("listed as seen %v", got)
		}
		after := f.content()
		f.minute()
		f.wantContent(after) // nobody logged in: nothing to write
		if writes := f.read("statistics")["last_seen_writes"]; writes != uint64(1) {
			t.Errorf("%v writes", writes)
		}
		f.gets(tpm, to(byAllowList))
		f.minute()
		if writes := f.read("statistics")["last_seen_writes"]; writes != uint64(2) {
			t.Errorf("%v writes", writes)
		}
	})
}

// The end of a process writes what it knows; the next one refuses a clock that
// fell. What dies with a process is what it saw since the minute.
func TestLastSeenOverFailOver(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		old := tpm.Clone()
		tpm.Counters.Clock += 1000
		f.gets(tpm, to(byAllowList))

		killed := f.again()
		killed.gets(old, to(byAllowList)) // nothing says that its clock fell
		f.b.Cleanup(t.Context())
		next := f.again()
		next.fails(old, to(byAllowList), attest.RuleClone)
		next.gets(tpm, to(byAllowList))
	})
}

// A standby never writes: not each minute, and not at its end.
func TestLastSeenOnStandby(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.enrolled("spire")
		before := f.content()
		f.standby()
		f.minute()
		f.b.Cleanup(t.Context())
		f.wantContent(before)
	})
}

// A write that fails is made up for at the next.
func TestLastSeenAfterAFailure(t *testing.T) {
	s := &breakable{Storage: new(logical.InmemStorage)}
	f := newFleet(t, s)
	f.enrolled("spire")
	seen := f.lastSeen("spire")
	s.puts = 1
	if err := f.b.everyMinute(t.Context(), &logical.Request{Storage: f.s}); err == nil {
		t.Error("no error when the storage fails")
	}
	s.puts = 0
	if got := f.again().lastSeen("spire"); got != "" {
		t.Errorf("stored as seen %s", got)
	}
	f.minute()
	if got := f.again().lastSeen("spire"); got != seen {
		t.Errorf("stored as seen %s, was seen %s", got, seen)
	}
}

// Ten thousand hosts in one minute are a few transactions within OpenBao's
// bounds, and all are there in the next process.
func TestLastSeenOfManyHosts(t *testing.T) {
	s := newCounting(t)
	f := newFleet(t, s)
	for i := range many {
		f.b.seen.note(attest.TPMID(numbered(i)), sighting{at: int64(i + 1), clock: uint64(i), reset: 3, restart: 4})
	}
	s.commits = nil
	f.minute()
	wantBounded(t, s.commits)
	if len(s.commits) == 0 || len(s.commits) > 8 {
		t.Errorf("%d transactions", len(s.commits))
	}
	next := f.again()
	for i := range many {
		last, ok, err := next.b.seen.last(t.Context(), f.s, attest.TPMID(numbered(i)))
		check(t, err)
		if want := (sighting{at: int64(i + 1), clock: uint64(i), reset: 3, restart: 4}); !ok || last != want {
			t.Fatalf("host %d: %+v, %v", i, last, ok)
		}
	}
	// One that logs in again costs its shard.
	next.b.seen.note(attest.TPMID(numbered(7)), sighting{at: many + 1, reset: 3, restart: 5})
	s.commits = nil
	next.minute()
	if len(s.commits) != 1 || s.commits[0].writes != 1 || s.commits[0].bytes > 64<<10 {
		t.Errorf("transactions: %+v", s.commits)
	}
}

// A host that is gone is forgotten, also where it was seen by another process.
func TestLastSeenIsForgotten(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		f.minute()
		next := f.again()
		next.must(logical.DeleteOperation, "host/spire", nil)
		next.must(logical.DeleteOperation, tombstonePrefix+idOf(t, tpm), nil)
		next.minute()
		next.enrol("spire", tpm)
		for _, f := range []*fleet{next, next.again()} {
			if got := f.lastSeen("spire"); got != "" {
				t.Errorf("last seen %s", got)
			}
		}
		for key, value := range f.content() {
			if strings.HasPrefix(key, seenPrefix) && value != "" {
				t.Errorf("%s is %d bytes", key, len(value))
			}
		}
	})
}

// What is stored in a shard and cut off is no sighting, and no reason to fail.
func TestLastSeenReadsWhatItCan(t *testing.T) {
	all := map[[32]byte]sighting{{1}: {at: 5, clock: 6, reset: 7, restart: 8}, {2}: {at: 9}}
	shard := seenShard{byTPM: maps.Clone(all)}
	b := shard.bytes()
	if got := parseSightings(b); fmt.Sprint(got) != fmt.Sprint(all) {
		t.Errorf("read %v", got)
	}
	for cut := range seenSize {
		if got := parseSightings(b[:len(b)-1-cut]); len(got) != 1 {
			t.Errorf("%d bytes: %v", len(b)-1-cut, got)
		}
	}
}
