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
		"tickets": "expired tickets, and those spent long ago", "pending": "TPMs that waited for a week",
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

// tidyAll looks for what is stale without keeping anybody waiting, and removes it
// batch by batch, each record looked at again.
func (b *backend) tidyAll(ctx context.Context, s logical.Storage) (map[string]any, error) {
	now := b.wallClock()
	removed := map[string]any{}
	for name, tidy := range map[string]func() (int, error){
		"tickets": func() (int, error) {
			return sweep(ctx, b, s, ticketPrefix, func(s logical.Storage, t *ticket) (bool, error) { return t.stale(ctx, s, now) })
		},
		"pending": func() (int, error) {
			return sweep(ctx, b, s, pendingPrefix, func(_ logical.Storage, p *pending) (bool, error) {
				return now.Sub(p.FirstSeen) > maxPendingAge, nil
			})
		},
		"baseline_entries": func() (int, error) { return b.tidyBaselines(ctx, s, now) },
		"verdicts":         func() (int, error) { return b.tidyVerdicts(ctx, s) },
	} {
		n, err := tidy()
		if err != nil {
			return nil, err
		}
		removed[name] = n
	}
	return removed, nil
}

// sweep removes the records under a prefix that are stale.
func sweep[T any](
	ctx context.Context, b *backend, s logical.Storage, prefix string, stale func(logical.Storage, *T) (bool, error),
) (int, error) {
	names, err := s.ListPage(ctx, prefix, "", -1)
	if err != nil {
		return 0, err
	}
	is := func(s logical.Storage, key string) (bool, error) {
		record, err := load[T](ctx, s, key)
		if err != nil || record == nil {
			return false, err
		}
		return stale(s, record)
	}
	var keys []string
	for _, name := range names {
		gone, err := is(s, prefix+name)
		if err != nil {
			return 0, err
		}
		if gone {
			keys = append(keys, prefix+name)
		}
	}
	return b.remove(ctx, s, keys, is)
}

// remove deletes those records that are still stale, a bounded number in each
// transaction.
func (b *backend) remove(
	ctx context.Context, s logical.Storage, keys []string, stale func(logical.Storage, string) (bool, error),
) (removed int, err error) {
	for batch := range slices.Chunk(keys, inventoryBatch) {
		n, err := b.removeBatch(ctx, s, batch, stale)
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, nil
}

func (b *backend) removeBatch(
	ctx context.Context, s logical.Storage, keys []string, stale func(logical.Storage, string) (bool, error),
) (removed int, err error) {
	b.records.Lock()
	defer b.records.Unlock()
	err = b.change(ctx, s, func(s logical.Storage) error {
		for _, key := range keys {
			still, err := stale(s, key)
			if err != nil {
				return err
			}
			if !still {
				continue
			}
			if err := s.Delete(ctx, key); err != nil {
				return err
			}
			removed++
		}
		return nil
	})
	return removed, err
}

func (b *backend) tidyBaselines(ctx context.Context, s logical.Storage, now time.Time) (removed int, err error) {
	names, err := s.ListPage(ctx, baselinePrefix, "", -1)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		l, err := load[baseline](ctx, s, baselinePrefix+name)
		if err != nil {
			return removed, err
		}
		if l == nil || l.expire(now) == 0 {
			continue
		}
		n, err := b.tidyBaseline(ctx, s, baselinePrefix+name, now)
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, nil
}

func (b *backend) tidyBaseline(ctx context.Context, s logical.Storage, key string, now time.Time) (removed int, err error) {
	b.records.Lock()
	defer b.records.Unlock()
	err = b.change(ctx, s, func(s logical.Storage) error {
		l, err := load[baseline](ctx, s, key)
		if err != nil || l == nil {
			return err
		}
		if removed = l.expire(now); removed == 0 {
			return nil
		}
		return save(ctx, s, key, l)
	})
	return removed, err
}

// expire takes the entries away that are good no more, and counts them.
func (l *baseline) expire(now time.Time) int {
	before := len(l.Entries)
	l.Entries = slices.DeleteFunc(l.Entries, func(e bootpolicy.Entry) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) })
	return before - len(l.Entries)
}

func (b *backend) tidyVerdicts(ctx context.Context, s logical.Storage) (int, error) {
	hosts, err := s.ListPage(ctx, verdictPrefix, "", -1)
	if err != nil {
		return 0, err
	}
	gone := func(s logical.Storage, key string) (bool, error) {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, verdictPrefix), "/")
		h, err := load[host](ctx, s, hostPrefix+name)
		return h == nil, err
	}
	var keys []string
	for _, name := range hosts {
		is, err := gone(s, verdictPrefix+name)
		if err != nil {
			return 0, err
		}
		if !is {
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
	return b.remove(ctx, s, keys, gone)
}

const (
	tidySynopsis    = "Remove what has expired."
	tidyDescription = `
Removes tickets that expired, spent ones after 30 days unless their host is still
there with the TPM that spent them, TPMs that waited a week for approval, expired
entries of baselines and verdicts about hosts that are gone. The active node does it
by itself once an hour.
`
)
