// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
					"refused":   {Type: framework.TypeMap, Description: "Hosts that cannot be as wanted, with the reason. Any: nothing is changed, but what is in created and changed without dry_run."},
					"dry_run":   {Type: framework.TypeBool, Description: "Whether nothing was to be changed."},
				}),
			},
		},
		HelpSynopsis:    inventorySynopsis,
		HelpDescription: inventoryDescription,
	}
}

// importInventory judges all lines, without keeping anybody waiting, and then writes
// them batch by batch.
func (b *backend) importInventory(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	lines, err := parseInventory(d.Get("hosts").([]any))
	if err != nil {
		return answer(err)
	}
	pl := newPlan()
	for i, line := range lines {
		if err := b.planLine(ctx, req.Storage, pl, i, line); err != nil {
			return nil, err
		}
	}
	dry := d.Get("dry_run").(bool)
	if !dry && len(pl.refused) == 0 {
		if err := b.carryOut(ctx, req.Storage, pl); err != nil {
			return nil, err
		}
	}
	resp := pl.answer(dry)
	missing, err := missingRoles(ctx, req.Storage, pl.roles())
	if err != nil {
		return nil, err
	}
	warnMissing(resp, missing)
	return resp, nil
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
	if wrong := wellFormed(raw, d); wrong != nil {
		pl.refused[fmt.Sprintf("line %d", i+1)] = wrong.Error()
		return nil //nolint:nilerr // an operator's mistake: it stands in the plan
	}
	p := planned{name: d.Get("name").(string), fields: d}
	err := b.look(ctx, s, &p)
	if err == nil {
		err = pl.claim(p.name, p.after)
	}
	return pl.add(p, err)
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

const (
	inventorySynopsis    = "Enrol many hosts at once, or see what that would do."
	inventoryDescription = `
Each of hosts is an object with name and the fields of host/:name. hosts can be
the text of the JSON array instead: OpenBao takes no more than a thousand strings
in one request. A line that names a host that is there changes the fields it has.
All lines are judged first: if one cannot be, nothing is changed. Then they are
written 200 at a time, each judged again by what is stored at that moment. Where
that fails, created and changed say what was written before; the same inventory can
be imported again. Hosts that the inventory does not name stay as they are.
`
)
