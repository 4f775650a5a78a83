// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"funlab.casa/omen/attest"
)

// statistics count what this process has seen since it started. Nothing decides
// by them.
type statistics struct {
	mu         sync.Mutex
	since      time.Time
	challenges uint64
	logins     uint64
	refused    map[attest.Rule]uint64
	monitored  map[string]uint64 // role/check → logins that enforcing would have refused
	alarms     []alarm
	// last are the last refusals of proven TPMs: what a host does not hear, its
	// operator can read.
	last *lru.Cache[attest.TPMID, lastRefusal]
}

// lastRefusal is why a proven TPM was refused.
type lastRefusal struct {
	at     time.Time
	rule   attest.Rule
	detail string
}

// maxLastRefusals is of how many TPMs the last refusal is kept.
const maxLastRefusals = 1 << 12

// alarm is something that an operator should look at: it does not happen to
// honest hosts.
type alarm struct {
	At     time.Time    `json:"at"`
	Rule   attest.Rule  `json:"rule"`
	Host   string       `json:"host,omitempty"`
	TPMID  attest.TPMID `json:"tpm_id"`
	Detail string       `json:"detail"`
	Times  int          `json:"times"`
}

// maxAlarms is how many alarms are kept, the latest of each TPM and rule: one TPM
// that rings all the time does not hide the others.
const maxAlarms = 100

func newStatistics(now time.Time) (*statistics, error) {
	last, err := lru.New[attest.TPMID, lastRefusal](maxLastRefusals)
	if err != nil {
		return nil, err
	}
	return &statistics{since: now, refused: map[attest.Rule]uint64{}, monitored: map[string]uint64{}, last: last}, nil
}

// proven notes how a proven TPM fared.
func (s *statistics) proven(id attest.TPMID, at time.Time, err error) {
	var r *attest.Refusal
	switch {
	case err == nil:
		s.last.Remove(id)
	case errors.As(err, &r):
		s.last.Add(id, lastRefusal{at: at, rule: r.Rule, detail: r.Detail})
	}
}

func (s *statistics) challenge() { s.count(&s.challenges) }

func (s *statistics) login() { s.count(&s.logins) }

func (s *statistics) count(n *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *statistics) refuse(rule attest.Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[rule]++
}

func (s *statistics) monitor(role string, checks []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, check := range checks {
		s.monitored[role+"/"+check]++
	}
}

func (s *statistics) raise(a alarm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Times = 1
	at := slices.IndexFunc(s.alarms, func(b alarm) bool { return b.Rule == a.Rule && b.TPMID == a.TPMID })
	switch {
	case at >= 0:
		a.Times += s.alarms[at].Times
		s.alarms = slices.Delete(s.alarms, at, at+1)
	case len(s.alarms) >= maxAlarms:
		s.alarms = slices.Delete(s.alarms, 0, 1)
	}
	s.alarms = append(s.alarms, a)
}

// data is the answer to an operator.
func (s *statistics) data(seenWrites uint64) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := map[string]any{}
	for rule, n := range s.refused {
		refused[string(rule)] = n
	}
	alarms := make([]map[string]any, 0, len(s.alarms))
	for _, a := range s.alarms {
		alarms = append(alarms, map[string]any{
			"at": a.At.Format(time.RFC3339), "rule": string(a.Rule), "host": a.Host,
			"tpm_id": string(a.TPMID), "detail": printable(a.Detail), "times": a.Times,
		})
	}
	return map[string]any{
		"since": s.since.UTC().Format(time.RFC3339), "challenges": s.challenges, "logins": s.logins,
		"refused": refused, "would_refuse": maps.Clone(s.monitored), "alarms": alarms, "last_seen_writes": seenWrites,
	}
}
