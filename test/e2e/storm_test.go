// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

func denying(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
}

// asking is a quota that is spent for the next quarter of an hour.
func asking(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", "900")
	http.Error(w, `{"errors":["request path quota exceeded"]}`, http.StatusTooManyRequests)
}

// A storm is a daemon whose server always says the same.
type storm struct {
	*fake
	name   string
	daemon *daemon
	began  time.Time
	most   func(time.Duration) int // requests in that time
}

// beginStorms starts omen-agent run on hosts of their own, each with a server that
// counts.
func (l *lab) beginStorms(ctx context.Context, t *testing.T) []*storm {
	t.Helper()
	once := func(time.Duration) int { return 1 }
	storms := []*storm{
		{name: "denied", fake: l.serve(ctx, t, denying), most: once},
		{name: "quota", fake: l.serve(ctx, t, asking), most: once},
		// For thirty seconds once a second; then not before the minute is over.
		{name: "down", fake: l.serve(ctx, t, failing), most: func(run time.Duration) int {
			return 31 + 31*int(run/time.Minute)
		}},
	}
	for _, s := range storms {
		m := l.add(ctx, t, s.name, world.Agent)
		m.changeConfig(t, world.BaoAddress, s.address)
		s.began, s.daemon = time.Now(), startRun(ctx, t, m.Host)
	}
	return storms
}

// end counts what was asked since the beginning.
func (s *storm) end(ctx context.Context, t *testing.T) {
	t.Helper()
	asked, run := len(s.requests()), time.Since(s.began)
	if code := s.daemon.terminate(ctx, t); code != 0 {
		t.Errorf("%s: after TERM the exit code is %d", s.name, code)
	}
	if asked == 0 || asked > s.most(run) {
		t.Errorf("%s: %d requests in %s, at most %d are wanted", s.name, asked, run, s.most(run))
	}
}
