// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// maxDetailed is the longest page of the detailed list.
const maxDetailed = 1000

func (b *backend) pathHostsDetailed() *framework.Path {
	fields := pageFields()
	fields["limit"] = &framework.FieldSchema{
		Type: framework.TypeInt, Query: true, Default: maxDetailed, Description: "List at most so many hosts; 1000 at most.",
	}
	return &framework.Path{
		Pattern:      "hosts/detailed/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "hosts-detailed"},
		Fields:       fields,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.listDetailed, Summary: "List the hosts with all that is known about them.",
				Responses: ok(detailFields()), ForwardPerformanceStandby: true,
			},
		},
		HelpSynopsis:    detailedSynopsis,
		HelpDescription: detailedDescription,
	}
}

func (b *backend) listDetailed(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	limit := d.Get("limit").(int)
	if limit <= 0 || limit > maxDetailed {
		limit = maxDetailed
	}
	names, err := req.Storage.ListPage(ctx, hostPrefix, d.Get("after").(string), limit)
	if err != nil {
		return nil, err
	}
	info := map[string]any{}
	for _, name := range names {
		h, err := load[host](ctx, req.Storage, hostPrefix+name)
		if err != nil {
			return nil, err
		}
		if h == nil {
			continue // deleted meanwhile
		}
		if info[name], err = b.describe(ctx, req.Storage, h); err != nil {
			return nil, err
		}
	}
	return logical.ListResponseWithInfo(names, info), nil
}

const (
	detailedSynopsis    = "List the hosts with all that is known about them, page by page."
	detailedDescription = `
Each page has at most 1000 hosts, by name; after is the last name of the page
before. Answered by the active node, which knows when a host was last seen.
`
)
