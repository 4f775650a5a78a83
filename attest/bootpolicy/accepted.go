// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import "time"

// accepted is a set of digests, each with the time until which some statement
// accepts it. Zero is never.
type accepted map[string]time.Time

func (a accepted) add(digest string, until time.Time) {
	if old, ok := a[digest]; ok {
		until = later(old, until)
	}
	a[digest] = until
}

func (a accepted) list(digests []string) {
	for _, d := range digests {
		a.add(d, time.Time{})
	}
}

// absent stands for a key variable that an accepted machine did not measure. It
// is no digest, so no list can say it.
const absent = "absent"

// statements are the live baselines, turned into sets.
type statements struct {
	entries    []*Entry // live
	expired    []*Entry
	digests    accepted            // PCR digests of lists and of the host
	keys       map[string]accepted // by variable; none: no statement about it
	components accepted
}

func (p *Policy) statements(now time.Time) *statements {
	s := &statements{digests: accepted{}, keys: map[string]accepted{}, components: accepted{}}
	for i := range p.Baselines {
		b := &p.Baselines[i]
		s.digests.list(b.PCRDigests)
		s.components.list(b.Components)
		for _, name := range keyNames {
			for _, d := range b.Keys[name] {
				s.key(name, d, time.Time{})
			}
		}
		for j := range b.Entries {
			s.entry(&b.Entries[j], now)
		}
	}
	s.digests.list(p.HostDigests)
	return s
}

// entry takes what a captured state says. One without a log says nothing about
// keys and components, one whose Secure Boot is unknown nothing about keys.
func (s *statements) entry(e *Entry, now time.Time) {
	if !e.live(now) {
		s.expired = append(s.expired, e)
		return
	}
	s.entries = append(s.entries, e)
	if !e.State.Log {
		return
	}
	for _, c := range e.State.Components {
		s.components.add(c.Digest, e.Expires)
	}
	if !e.State.knowsSecureBoot() {
		return
	}
	for _, name := range keyNames {
		digest, ok := e.State.Keys[name]
		if !ok {
			digest = absent
		}
		s.key(name, digest, e.Expires)
	}
}

func (s *statements) key(name, digest string, until time.Time) {
	if s.keys[name] == nil {
		s.keys[name] = accepted{}
	}
	s.keys[name].add(digest, until)
}
