// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"fmt"
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
				ForwardPerformanceStandby: true,
				Responses: ok(map[string]*framework.FieldSchema{
					"last_refusal": {Type: framework.TypeMap, Description: "Why the host did not get in when it last tried: at, rule, detail. Empty when it did, and after a fail-over."},
					"roles":        {Type: framework.TypeMap, Description: "By role: at, accepted, findings, would_refuse, state, state_id, firmware, and until where an entry expires."},
				}),
			},
		},
		HelpSynopsis:    verdictSynopsis,
		HelpDescription: verdictDescription,
	}
}

func (b *backend) readVerdict(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("host").(string)
	roles, err := verdicts(ctx, req.Storage, verdictPrefix+name+"/")
	if err != nil {
		return nil, err
	}
	refused, err := b.lastRefusal(ctx, req.Storage, name)
	if err != nil || len(roles) == 0 && len(refused) == 0 {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"roles": roles, "last_refusal": refused}}, nil
}

func verdicts(ctx context.Context, s logical.Storage, prefix string) (map[string]any, error) {
	names, err := s.ListPage(ctx, prefix, "", -1)
	if err != nil {
		return nil, err
	}
	roles := map[string]any{}
	for _, name := range names {
		r, err := load[report](ctx, s, prefix+name)
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
	return roles, nil
}

// lastRefusal is why the host did not get in when it last tried; empty when it did.
func (b *backend) lastRefusal(ctx context.Context, s logical.Storage, name string) (map[string]any, error) {
	h, err := load[host](ctx, s, hostPrefix+name)
	if err != nil || h == nil || len(h.TPMIDs) == 0 {
		return map[string]any{}, err
	}
	last, ok := b.statistics.last.Get(h.TPMIDs[0])
	if !ok {
		return map[string]any{}, nil
	}
	return map[string]any{
		"at": last.at.UTC().Format(time.RFC3339), "rule": string(last.rule), "detail": printable(last.detail),
	}, nil
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
last_refusal is why the host, having proven its TPM, was refused when it last
tried, by whatever rule; the active node keeps it in memory.
`
)
