// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"errors"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/svid"
)

// Users of these tests: nobody else has these numbers.
const (
	listed   = 47110
	unlisted = 47111
)

// TestGoSpiffe: an unmodified go-spiffe of a listed user gets SVID and bundle, talks to
// itself with them, and has the next certificate soon after it is there, again and again.
func TestGoSpiffe(t *testing.T) {
	s := newShop(t)
	c := openFor(t, s, listed)
	first := 0x1000 + s.serial
	w := c.start(listed)
	w.wants(first)
	for range 2 {
		w.wants(s.renew(time.Hour))
	}
	s.set(nil, errors.New("not proven")) // as between switch and proof
	await(t, "the log", func() bool { return strings.Contains(c.log.String(), "not proven") })
	w.wants(s.renew(time.Hour))
	if out := c.ask(listed, svid.Bundles); out != "bundle funlab.casa book\ncode OK\n" {
		t.Errorf("%q", out)
	}
	c.stop()
	if text := c.log.String(); strings.Count(text, "no certificate can be handed out") != 1 || !strings.Contains(text, "handed out again") || strings.Contains(text, "PRIVATE") {
		t.Errorf("log:\n%s", text)
	}
}

// TestWhoIsRefused: whom nobody lists gets nothing, root neither; nor does who does not
// know that it speaks to this API.
func TestWhoIsRefused(t *testing.T) {
	s := newShop(t)
	c := openFor(t, s, listed)
	for _, row := range []struct {
		uid        uint32
		part, want string
	}{
		{unlisted, svid.Fetch, "code PermissionDenied\n"},
		{unlisted, svid.Bundles, "code PermissionDenied\n"},
		{unlisted, svid.JWT, "code PermissionDenied\n"},
		{0, svid.Fetch, "code PermissionDenied\n"},
		{unlisted, svid.Bare, "code InvalidArgument\n"},
		{listed, svid.Bare, "code InvalidArgument\n"},
		{listed, svid.JWT, "code Unimplemented\n"},
		{listed, svid.Fetch, "svid spiffe://funlab.casa/web 1001\ncode OK\n"},
	} {
		if out := c.ask(row.uid, row.part); out != row.want {
			t.Errorf("%s as %d: %q, not %q", row.part, row.uid, out, row.want)
		}
	}
	if told := strings.Count(c.log.String(), "is not listed"); told != 1 {
		t.Errorf("told %d times:\n%s", told, c.log.String())
	}
}

// TestNothingToHandOut: a process is told why, in words that tell nothing of the host.
func TestNothingToHandOut(t *testing.T) {
	s := newShop(t)
	s.set(nil, &Unavailable{Says: "the key is sealed", Err: errors.New("/run/omen-agent/web/gen-000001")})
	c := openFor(t, s, listed, 0)
	if out := c.ask(listed, svid.Fetch); out != "code Unavailable\n" {
		t.Errorf("%q", out)
	}
	got := c.call(fetchSVID, empty)
	if got.status != "14" || got.message != "the key is sealed" || len(got.body) != 0 {
		t.Errorf("%+v", got)
	}
	s.set(nil, errors.New("/run/omen-agent/web"))
	await(t, "other words", func() bool { return c.call(fetchSVID, empty).message == "there is no certificate to hand out just now" })
}

// TestExpired: a stream ends when what it gave has expired and nothing newer can be had.
func TestExpired(t *testing.T) {
	s := newShop(t)
	s.renew(2 * time.Second)
	c := openFor(t, s, 0)
	ended := make(chan answer, 1)
	go func() { ended <- c.call(fetchSVID, empty) }()
	await(t, "a stream", func() bool { return s.times() > 0 })
	s.set(nil, errors.New("expired"))
	if got := <-ended; got.status != "14" || len(got.body) == 0 {
		t.Errorf("%+v", got)
	}
}
