// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"

	"funlab.casa/omen/attest"
)

// Two TPMs at once with one ticket: one is the host.
func TestTicketRace(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		for range 5 {
			secret := f.anyTicket("spire")
			var bodies []map[string]any
			for range 6 {
				_, data := f.answered(f.tpm(), with(secret))
				bodies = append(bodies, data)
			}
			if in := f.atOnce(bodies); in != 1 {
				t.Fatalf("%d of 6 got in", in)
			}
			if ids := f.read("host/spire")["tpm_ids"].([]attest.TPMID); string(ids[0]) != f.ticketRecord(secret)["spent_by"] {
				t.Errorf("host has %v, ticket is %v", ids, f.ticketRecord(secret))
			}
			f.must(logical.DeleteOperation, "host/spire", nil)
		}
	})
}

// Two tickets for one name, at once: one host.
func TestTicketNameRace(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		var bodies []map[string]any
		for range 6 {
			_, data := f.answered(f.tpm(), with(f.anyTicket("spire")))
			bodies = append(bodies, data)
		}
		if in := f.atOnce(bodies); in != 1 {
			t.Fatalf("%d of 6 got in", in)
		}
	})
}

// Ticket, host record, indexes and pin change together or not at all.
func TestTicketIsAllOrNothing(t *testing.T) {
	physical, err := inmem.NewInmem(nil, nil)
	check(t, err)
	s := &flaky{TransactionalStorage: logical.NewLogicalStorage(physical).(logical.TransactionalStorage)}
	f := newFleet(t, s)
	tpm, secret := f.tpm(), f.anyTicket("spire")
	before := f.content()
	for _, said := range []error{errors.New("missing storage implementation"), errors.New("transaction commit failed")} {
		s.commit = said
		_, data := f.answered(tpm, with(secret))
		resp, err := f.request(logical.UpdateOperation, loginPath, data)
		if err == nil || resp != nil {
			t.Fatalf("commit failed with %v: %v, %v", said, resp, err)
		}
		s.commit = nil
		f.wantContent(before)
		if resp := f.must(logical.ReadOperation, "host/spire", nil); resp != nil {
			t.Errorf("host is %v", resp.Data)
		}
	}
	for n := 1; n <= 6; n++ { // ticket, index, host record, pin, index of AKs
		physical, err := inmem.NewInmem(nil, nil)
		check(t, err)
		s := &halting{TransactionalStorage: logical.NewLogicalStorage(physical).(logical.TransactionalStorage)}
		f := newFleet(t, s)
		tpm, secret := f.tpm(), f.anyTicket("spire")
		before := f.content()
		_, data := f.answered(tpm, with(secret))
		s.puts = n
		_, err = f.request(logical.UpdateOperation, loginPath, data)
		if n == 6 {
			check(t, err)
			break
		}
		if err == nil {
			t.Fatalf("write %d failed, and there is a token", n)
		}
		s.puts = 0
		f.wantContent(before)
		f.gets(tpm, with(secret))
	}
	f.gets(tpm, with(secret))
}

// halting is a transactional storage in which the n-th write fails.
type halting struct {
	logical.TransactionalStorage
	puts int
}

type haltingTx struct {
	logical.Transaction
	puts *int
}

func (h *halting) BeginTx(ctx context.Context) (logical.Transaction, error) {
	tx, err := h.TransactionalStorage.BeginTx(ctx)
	return &haltingTx{tx, &h.puts}, err
}

func (h *haltingTx) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := countdown(h.puts); err != nil {
		return err
	}
	return h.Transaction.Put(ctx, entry)
}
