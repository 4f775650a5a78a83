// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// inventoryBatch is how many hosts one transaction writes: a few hundred bytes
// each, far below what OpenBao takes.
const inventoryBatch = 200

func (b *backend) pathInventory() *framework.Path {
	names := func(what string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeStringSlice, Description: "Hosts " + what + "."}
	}
	return &framework.Path{
		Pattern:      "inventory",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "import", OperationSuffix: "inventory"},
		Fields: map[string]*framework.FieldSchema{
			"hosts": {
				Type: framework.TypeSlice, Required: true,
				Description: "Hosts to list: objects with name and the fields of host/:name; or the text of such a JSON array.",
			},
			"dry_run": {Type: framework.TypeBool, Default: false, Description: "Say what would happen and change nothing."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.importInventory, Summary: "Enrol many hosts.",
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				Responses: ok(map[string]*framework.FieldSchema{
					"created": names("that are new"), "changed": names("whose record is another now"),
					"unchanged": names("that were as wanted"),
					"refused":   {Type: framework.TypeMap, Description: "Hosts that cannot be as wanted, with the reason. Any: nothing is changed."},
					"dry_run":   {Type: framework.TypeBool, Description: "Whether nothing was to be changed."},
				}),
			},
		},
		HelpSynopsis:    inventorySynopsis,
		HelpDescription: inventoryDescription,
	}
}

// planned is one line of an inventory held against what is stored.
type planned struct {
	name   string
	before *host // nil: new
	after  *host
}

// plan is an inventory held against what is stored.
type plan struct {
	lines     []planned // that change something
	unchanged []string
	refused   map[string]any
	claimed   map[string]string // place in an index → name, within the inventory
}

func (b *backend) importInventory(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	lines, err := parseInventory(d.Get("hosts").([]any))
	if err != nil {
		return answer(err)
	}
	b.records.Lock()
	defer b.records.Unlock()
	pl := &plan{unchanged: []string{}, refused: map[string]any{}, claimed: map[string]string{}}
	for i, line := range lines {
		if err := b.planLine(ctx, req.Storage, pl, i, line); err != nil {
			return nil, err
		}
	}
	dry := d.Get("dry_run").(bool)
	if dry || len(pl.refused) > 0 {
		return pl.answer(dry), nil
	}
	for batch := range slices.Chunk(pl.lines, inventoryBatch) {
		err := b.change(ctx, req.Storage, func(s logical.Storage) error {
			for _, p := range batch {
				if err := b.putHost(ctx, s, p.name, p.before, p.after, "replaced"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return answer(err)
		}
	}
	return pl.answer(dry), nil
}

// parseInventory takes the lines as they are, or reads them from one text: OpenBao
// takes a thousand strings in a request, and an inventory has more.
func parseInventory(hosts []any) (lines []any, err error) {
	if len(hosts) != 1 {
		return hosts, nil
	}
	text, ok := hosts[0].(string)
	if !ok {
		return hosts, nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&lines); err != nil {
		return nil, mistakef("hosts is the text of a JSON array of objects: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, mistake("hosts has something after the JSON array")
	}
	return lines, nil
}

// planLine judges one line: an operator's mistake goes into the plan, an error is
// the storage's.
func (b *backend) planLine(ctx context.Context, s logical.Storage, pl *plan, i int, line any) error {
	raw, _ := line.(map[string]any)
	d := &framework.FieldData{Raw: raw, Schema: hostFields()}
	if err := wellFormed(raw, d); err != nil {
		pl.refused[fmt.Sprintf("line %d", i+1)] = err.Error()
		return nil
	}
	name := d.Get("name").(string)
	before, err := load[host](ctx, s, hostPrefix+name)
	if err != nil {
		return err
	}
	h := newHost(byAllowList, b.wallClock())
	if before != nil {
		*h = *before
	}
	err = h.set(d)
	if err == nil {
		err = checkOwners(ctx, s, name, h)
	}
	if err == nil {
		err = pl.claim(name, h)
	}
	return pl.add(planned{name: name, before: before, after: h}, err)
}

func wellFormed(raw map[string]any, d *framework.FieldData) error {
	if raw == nil {
		return mistake("is not an object")
	}
	for field := range raw {
		if d.Schema[field] == nil {
			return mistakef("has a field %.40q that hosts do not have", field)
		}
	}
	if err := d.Validate(); err != nil {
		return mistake(err.Error())
	}
	return checkHostName(d.Get("name").(string))
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
	switch wrong, ok := err.(mistake); { //nolint:errorlint // our own type, never wrapped here
	case ok:
		pl.refused[line.name] = wrong.Error()
	case err != nil:
		return err
	case line.before != nil && reflect.DeepEqual(line.before, line.after):
		pl.unchanged = append(pl.unchanged, line.name)
	default:
		pl.lines = append(pl.lines, line)
	}
	return nil
}

func (pl *plan) answer(dry bool) *logical.Response {
	created, changed := []string{}, []string{}
	for _, line := range pl.lines {
		if line.before == nil {
			created = append(created, line.name)
		} else {
			changed = append(changed, line.name)
		}
	}
	resp := &logical.Response{Data: map[string]any{
		"created": created, "changed": changed, "unchanged": pl.unchanged, "refused": pl.refused, "dry_run": dry,
	}}
	if len(pl.refused) > 0 {
		resp.AddWarning("nothing was changed: see refused")
	}
	return resp
}

const (
	inventorySynopsis    = "Enrol many hosts at once, or see what that would do."
	inventoryDescription = `
Each of hosts is an object with name and the fields of host/:name. hosts can be
the text of the JSON array instead: OpenBao takes no more than a thousand strings
in one request. A line that
names a host that is there changes the fields it has. All lines are judged first:
if one cannot be, nothing is changed. Hosts that the inventory does not name stay
as they are.
`
)
