// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

const (
	threatDigest = "values that do not hash to pcrDigest"
	threatLog    = "event log empty, truncated, stripped; PCR with a value and no events; replay that matches only SHA-1; types re-written; sizes that lie"
)

// measured is an attack by a host that booted otherwise than before and sends
// PCR values and event log.
func measured(name, threat string, rule attest.Rule, lie func(*TPM, *Login) error) Attack {
	return Attack{Name: name, Threat: threat, Rule: rule, ReadsLog: true, Prepare: func(ctx context.Context, s *Scene) (Attempt, error) {
		t, err := s.moved()
		if err != nil {
			return nil, err
		}
		l := s.login()
		l.Measured = true
		if err := lie(t, &l); err != nil {
			return nil, err
		}
		m, err := s.answered(ctx, t, l)
		return s.sent(m), err
	}}
}

func measurementAttacks() []Attack {
	values := func(name string, bend func([][]byte) [][]byte) Attack {
		return measured("pcr-digest/"+name, threatDigest, attest.RulePCRDigest, func(_ *TPM, l *Login) error {
			l.Message = func(m *attest.LoginRequest) { m.PCRs = bend(m.PCRs) }
			return nil
		})
	}
	return []Attack{
		values("value bent", func(v [][]byte) [][]byte {
			v[0] = flip(v[0], 0)
			return v
		}),
		values("last value bent", func(v [][]byte) [][]byte {
			v[len(v)-1] = flip(v[len(v)-1], -1)
			return v
		}),
		values("value missing", func(v [][]byte) [][]byte { return append(v[1:], []byte{0}) }),
		values("fewer values", func(v [][]byte) [][]byte { return v[:len(v)-1] }),
		values("more values", func(v [][]byte) [][]byte { return append(v, make([]byte, len(v[0]))) }),
		values("cut at another place", func(v [][]byte) [][]byte {
			// The same bytes in all, so that a hash over them alone would agree.
			all := bytes.Join(v, nil)
			for i := range v {
				n := min(len(v[i])+1, len(all))
				if i == len(v)-1 {
					n = len(all)
				}
				v[i], all = all[:n], all[n:]
			}
			return v
		}),
		measured("pcr-digest/quote over other values", threatDigest, attest.RulePCRDigest, func(_ *TPM, l *Login) error {
			l.Quote = func(a *Attestation) { a.Digest = flip(a.Digest, 0) }
			return nil
		}),
	}
}

func logBytesAttacks() []Attack {
	log := func(name string, bend func([]byte) []byte) Attack {
		return logged(name, func(_ *TPM, l *Login) error {
			l.Log = bend
			return nil
		})
	}
	le := binary.LittleEndian
	return []Attack{
		log("truncated", func(b []byte) []byte { return b[:len(b)-1] }),
		log("half", func(b []byte) []byte { return b[:len(b)/2] }),
		log("header only", func([]byte) []byte { return logHeader() }),
		log("no header", func(b []byte) []byte { return b[len(logHeader()):] }),
		log("trailing bytes", func(b []byte) []byte { return append(b, 1, 2, 3) }),
		log("zeros", func(b []byte) []byte { return make([]byte, len(b)) }),
		log("noise", func([]byte) []byte { return bytes.Repeat([]byte{0xa5}, 4096) }),
		log("size of the last event lies", func(b []byte) []byte {
			le.PutUint32(b[len(b)-32-4:], 0xffffffff)
			return b
		}),
		log("size of the header lies", func(b []byte) []byte {
			le.PutUint32(b[28:], 0xfffffff0)
			return b
		}),
		log("count of digests lies", func(b []byte) []byte {
			le.PutUint32(b[len(logHeader())+8:], 0xffffffff)
			return b
		}),
		log("size of a digest lies", func(b []byte) []byte {
			le.PutUint16(b[len(logHeader())-11:], 0xffff)
			return b
		}),
	}
}

func logAttacks() []Attack {
	events := func(name string, bend func([]Event) []Event) Attack {
		return logged(name, func(t *TPM, _ *Login) error {
			t.Events = bend(t.Events)
			return nil
		})
	}
	return []Attack{
		events("last event left out", func(e []Event) []Event { return e[:len(e)-1] }),
		events("first event left out", func(e []Event) []Event { return e[1:] }),
		events("all of a PCR left out", func(e []Event) []Event { return withoutEvents(e, func(e Event) bool { return e.PCR == 4 }) }),
		events("order changed", func(e []Event) []Event {
			last := len(e) - 1
			changed := append([]Event{e[last]}, e[:last]...)
			return changed
		}),
		events("event twice", func(e []Event) []Event { return append(e[:len(e):len(e)], e[len(e)-1]) }),
		events("event called not measured", func(e []Event) []Event { return retyped(e, EventNoAction) }),
		events("right in SHA-1 only", redigested),
		logged("value that no event explains", func(t *TPM, _ *Login) error {
			logged := t.Events
			err := t.Measure(Event{PCR: 4, Type: EventBootServices, Data: []byte("not in the log")})
			t.Events = logged
			return err
		}),
		logged("another than was quoted", func(_ *TPM, l *Login) error {
			l.Message = func(m *attest.LoginRequest) { m.EventLog = logHeader() }
			return nil
		}),
		logged("right, but another was quoted", func(t *TPM, l *Login) error {
			right, err := t.EventLog()
			l.Log = func([]byte) []byte { return logHeader() }
			l.Message = func(m *attest.LoginRequest) { m.EventLog = right }
			return err
		}),
		logged("withheld", func(_ *TPM, l *Login) error {
			l.Message = func(m *attest.LoginRequest) { m.EventLog = nil }
			return nil
		}).also(attest.RuleEventLogNeeded),
		logged("empty", func(_ *TPM, l *Login) error {
			l.Log = func([]byte) []byte { return []byte{} }
			return nil
		}).also(attest.RuleEventLogNeeded),
		{Name: "event-log/not sent", Threat: threatLog, Rule: attest.RuleEventLogNeeded, ReadsLog: true, Prepare: func(_ context.Context, s *Scene) (Attempt, error) {
			t, err := s.moved()
			return s.tried(t, s.login()), err
		}},
	}
}

func logged(name string, lie func(*TPM, *Login) error) Attack {
	return measured("event-log/"+name, threatLog, attest.RuleEventLog, lie)
}

// retyped calls the last event something that is not measured.
func retyped(events []Event, kind uint32) []Event {
	changed := append([]Event{}, events...)
	changed[len(changed)-1].Type = kind
	return changed
}

// redigested logs another digest of the last event in all banks but SHA-1.
func redigested(events []Event) []Event {
	changed := append([]Event{}, events...)
	changed[len(changed)-1].Digests = map[tpm2.TPMAlgID][]byte{
		tpm2.TPMAlgSHA256: make([]byte, 32), tpm2.TPMAlgSHA384: make([]byte, 48),
	}
	return changed
}
