// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest/bootpolicy"
)

// tidyEvery is how often the active node tidies by itself.
const tidyEvery = time.Hour

// everyMinute is what OpenBao calls once a minute, on standbys as well; those
// write nothing.
func (b *backend) everyMinute(ctx context.Context, req *logical.Request) error {
	if b.onStandby() {
		return nil
	}
	if err := b.seen.flush(ctx, req.Storage); err != nil {
		return err
	}
	if now := b.wallClock(); now.Sub(b.tidied) >= tidyEvery {
		b.tidied = now
		_, err := b.tidyAll(ctx, req.Storage)
		return err
	}
	return nil
}

func (b *backend) pathTidy() *framework.Path {
	counts := map[string]*framework.FieldSchema{}
	for name, what := range map[string]string{
		"tickets": "expired tickets", "pending": "TPMs that waited for a week",
		"baseline_entries": "expired entries of baselines", "verdicts": "verdicts about hosts that are gone",
	} {
		counts[name] = &framework.FieldSchema{Type: framework.TypeInt, Description: "How many " + what + " were removed."}
	}
	return &framework.Path{
		Pattern:      "tidy",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "tidy"},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.tidyNow, Summary: "Remove what has expired.", Responses: ok(counts),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    tidySynopsis,
		HelpDescription: tidyDescription,
	}
}

func (b *backend) tidyNow(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	removed, err := b.tidyAll(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: removed}, nil
}

func (b *backend) tidyAll(ctx context.Context, s logical.Storage) (map[string]any, error) {
	b.records.Lock()
	defer b.records.Unlock()
	now := b.wallClock()
	removed := map[string]any{}
	for name, sweep := range map[string]func() (int, error){
		"tickets": func() (int, error) {
			return sweep(ctx, b, s, ticketPrefix, func(t *ticket) bool { return !now.Before(t.Expires) })
		},
		"pending": func() (int, error) {
			return sweep(ctx, b, s, pendingPrefix, func(p *pending) bool { return now.Sub(p.FirstSeen) > maxPendingAge })
		},
		"baseline_entries": func() (int, error) { return b.tidyBaselines(ctx, s, now) },
		"verdicts":         func() (int, error) { return b.tidyVerdicts(ctx, s) },
	} {
		n, err := sweep()
		if err != nil {
			return nil, err
		}
		removed[name] = n
	}
	return removed, nil
}

// sweep removes the records under a prefix that are stale.
func sweep[T any](ctx context.Context, b *backend, s logical.Storage, prefix string, stale func(*T) bool) (removed int, err error) {
	names, err := s.ListPage(ctx, prefix, "", -1)
	if err != nil {
		return 0, err
	}
	var keys []string
	for _, name := range names {
		record, err := load[T](ctx, s, prefix+name)
		if err != nil {
			return 0, err
		}
		if record != nil && stale(record) {
			keys = append(keys, prefix+name)
		}
	}
	return len(keys), b.remove(ctx, s, keys)
}

// remove deletes records, a bounded number in each transaction.
func (b *backend) remove(ctx context.Context, s logical.Storage, keys []string) error {
	for batch := range slices.Chunk(keys, inventoryBatch) {
		err := b.change(ctx, s, func(s logical.Storage) error {
			for _, key := range batch {
				if err := s.Delete(ctx, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) tidyBaselines(ctx context.Context, s logical.Storage, now time.Time) (removed int, err error) {
	names, err := s.ListPage(ctx, baselinePrefix, "", -1)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		l, err := load[baseline](ctx, s, baselinePrefix+name)
		if err != nil || l == nil {
			return removed, err
		}
		before := len(l.Entries)
		l.Entries = slices.DeleteFunc(l.Entries, func(e bootpolicy.Entry) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) })
		if len(l.Entries) == before {
			continue
		}
		removed += before - len(l.Entries)
		err = b.change(ctx, s, func(s logical.Storage) error { return save(ctx, s, baselinePrefix+name, l) })
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

func (b *backend) tidyVerdicts(ctx context.Context, s logical.Storage) (int, error) {
	hosts, err := s.ListPage(ctx, verdictPrefix, "", -1)
	if err != nil {
		return 0, err
	}
	var keys []string
	for _, name := range hosts {
		h, err := load[host](ctx, s, hostPrefix+strings.TrimSuffix(name, "/"))
		if err != nil {
			return 0, err
		}
		if h != nil {
			continue
		}
		roles, err := s.ListPage(ctx, verdictPrefix+name, "", -1)
		if err != nil {
			return 0, err
		}
		for _, role := range roles {
			keys = append(keys, verdictPrefix+name+role)
		}
	}
	return len(keys), b.remove(ctx, s, keys)
}

const (
	tidySynopsis    = "Remove what has expired."
	tidyDescription = `
Removes expired tickets, TPMs that waited a week for approval, expired entries of
baselines and verdicts about hosts that are gone. The active node does it by
itself once an hour.
`
)
