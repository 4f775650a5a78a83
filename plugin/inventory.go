// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// planned is one line of an inventory held against what is stored.
type planned struct {
	name   string
	fields *framework.FieldData
	before *host // nil: new
	after  *host
	wrong  error // why it cannot be written now
}

// changes reports whether the line wants something else than what is stored.
func (p *planned) changes() bool { return p.before == nil || !reflect.DeepEqual(p.before, p.after) }

// plan is an inventory held against what is stored.
type plan struct {
	lines     []planned // that change something
	unchanged []string
	refused   map[string]any
	claimed   map[string]string // place in an index → name, within the inventory
	stopped   bool              // not all lines were written
}

func newPlan() *plan {
	return &plan{unchanged: []string{}, refused: map[string]any{}, claimed: map[string]string{}}
}

// look holds a line against what is stored.
func (b *backend) look(ctx context.Context, s logical.Storage, p *planned) (err error) {
	if p.before, err = load[host](ctx, s, hostPrefix+p.name); err != nil {
		return err
	}
	if p.after, err = b.amend(p.before, p.fields); err != nil {
		return err
	}
	return checkOwners(ctx, s, p.name, p.after)
}

// claim refuses a name or key that an earlier line has.
func (pl *plan) claim(name string, h *host) error {
	for _, key := range append(h.claims(), hostPrefix+name) {
		if other, ok := pl.claimed[key]; ok {
			return mistakef("%s is in the inventory twice: see host %s", key, other)
		}
		pl.claimed[key] = name
	}
	return nil
}

func (pl *plan) add(line planned, err error) error {
	var wrong mistake
	switch {
	case errors.As(err, &wrong):
		pl.refused[line.name] = wrong.Error()
	case err != nil:
		return err
	case !line.changes():
		pl.unchanged = append(pl.unchanged, line.name)
	default:
		pl.lines = append(pl.lines, line)
	}
	return nil
}

// carryOut writes the plan batch by batch, so that nobody waits for all of it. A
// mistake, because something changed since, ends it and goes into the plan, which
// keeps the lines that were written.
func (b *backend) carryOut(ctx context.Context, s logical.Storage, pl *plan) error {
	written := 0
	for batch := range slices.Chunk(pl.lines, inventoryBatch) {
		err := b.writeBatch(ctx, s, batch)
		var wrong mistake
		switch {
		case errors.As(err, &wrong):
			for _, line := range batch {
				if line.wrong != nil {
					pl.refused[line.name] = line.wrong.Error()
				}
			}
			pl.lines, pl.stopped = pl.lines[:written], true
			return nil
		case err != nil && written > 0 && !logical.ShouldForward(err):
			return logical.CodedError(http.StatusInternalServerError, fmt.Sprintf(
				"%d of %d hosts are written, the last is %s; of the %d after it nobody knows, the others are not: import again: %v",
				written, len(pl.lines), pl.lines[written-1].name, len(batch), err))
		case err != nil:
			return err
		}
		written += len(batch)
	}
	return nil
}

// writeBatch judges the lines of a batch again, and writes all of them or none.
func (b *backend) writeBatch(ctx context.Context, s logical.Storage, batch []planned) error {
	b.records.Lock()
	defer b.records.Unlock()
	return b.edit(ctx, s, func(e *edit) error {
		var first error
		for i := range batch {
			batch[i].wrong = b.look(ctx, e, &batch[i])
			if wrong := mistake(""); batch[i].wrong != nil && !errors.As(batch[i].wrong, &wrong) {
				return batch[i].wrong
			}
			if first == nil {
				first = batch[i].wrong
			}
		}
		if first != nil {
			return first
		}
		for _, p := range batch {
			if !p.changes() {
				continue // somebody else wrote it
			}
			if err := b.putHost(ctx, e, p.name, p.before, p.after, "replaced"); err != nil {
				return err
			}
		}
		return nil
	})
}

// roles are all that the plan's hosts may use.
func (pl *plan) roles() []string {
	var names []string
	for _, line := range pl.lines {
		names = append(names, line.after.Roles...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (pl *plan) answer(dry bool) *logical.Response {
	created, changed, boards := []string{}, []string{}, []string{}
	for _, line := range pl.lines {
		if line.before == nil {
			created = append(created, line.name)
		} else {
			changed = append(changed, line.name)
		}
		if otherBoard(line.before, line.after) {
			boards = append(boards, line.name)
		}
	}
	resp := &logical.Response{Data: map[string]any{
		"created": created, "changed": changed, "unchanged": pl.unchanged, "refused": pl.refused, "dry_run": dry,
	}}
	switch {
	case pl.stopped:
		resp.AddWarning("the import stopped, because something changed meanwhile: only created and changed are written; see refused")
	case len(pl.refused) > 0:
		resp.AddWarning("nothing was changed: see refused")
	}
	if len(boards) > 0 {
		resp.AddWarning(fmt.Sprintf("another TPM logs in for %d hosts, and the old ones are kept out or reserved: %s",
			len(boards), shortened(boards)))
	}
	return resp
}

// shortened are the first names of a list.
func shortened(names []string) string {
	const shown = 20
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:shown], ", ") + ", …"
}
