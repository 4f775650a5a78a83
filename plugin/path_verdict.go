// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

func (b *backend) pathVerdict() *framework.Path {
	return &framework.Path{
		Pattern:      verdictPrefix + framework.GenericNameRegex("host"),
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "verdict"},
		Fields: map[string]*framework.FieldSchema{
			"host": {Type: framework.TypeString, Description: "Name of the host."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readVerdict, Summary: "Read what was last said about a host's boot, by role.",
				Responses: ok(map[string]*framework.FieldSchema{
					"roles": {Type: framework.TypeMap, Description: "By role: at, accepted, findings, would_refuse, state, state_id, firmware."},
				}),
			},
		},
		HelpSynopsis:    verdictSynopsis,
		HelpDescription: verdictDescription,
	}
}

func (b *backend) readVerdict(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	prefix := verdictPrefix + d.Get("host").(string) + "/"
	names, err := req.Storage.ListPage(ctx, prefix, "", -1)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	roles := map[string]any{}
	for _, name := range names {
		r, err := load[report](ctx, req.Storage, prefix+strings.TrimSuffix(name, "/"))
		if err != nil {
			return nil, err
		}
		if r == nil {
			continue
		}
		if roles[name], err = r.describe(); err != nil {
			return nil, err
		}
	}
	return &logical.Response{Data: map[string]any{"roles": roles}}, nil
}

// describe is the report for an operator's eyes: names in it come from a host's
// event log, and package bootpolicy has made them printable.
func (r *report) describe() (map[string]any, error) {
	text, err := json.Marshal(map[string]any{"state": r.State, "findings": r.Verdict.Findings})
	if err != nil {
		return nil, fmt.Errorf("encode verdict: %w", err)
	}
	data := map[string]any{}
	if err := json.Unmarshal(text, &data); err != nil {
		return nil, fmt.Errorf("encode verdict: %w", err)
	}
	data["at"], data["accepted"] = r.At.Format(time.RFC3339), r.Verdict.Accepted
	data["would_refuse"], data["state_id"] = r.Verdict.WouldRefuse, r.StateID
	data["firmware"] = fmt.Sprintf("%016x", r.Firmware)
	if !r.Verdict.Until.IsZero() {
		data["until"] = r.Verdict.Until.Format(time.RFC3339)
	}
	return data, nil
}

const (
	verdictSynopsis    = "Read what was last said about a host's boot, and why."
	verdictDescription = `
By role: whether the state of the machine was accepted, the findings that say
which PCR, event and component is not as a baseline has it, the monitored checks
that would have refused, and the state itself with its state_id, by which
baseline/:name/promote takes it over. A verdict is kept when it says something new.
`
)
