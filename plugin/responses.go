// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"net/http"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// ok describes an answer with these fields, for the API documentation.
func ok(fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{
		http.StatusOK: {{Description: http.StatusText(http.StatusOK), Fields: fields}},
	}
}

func noContent() map[int][]framework.Response {
	return map[int][]framework.Response{
		http.StatusNoContent: {{Description: http.StatusText(http.StatusNoContent)}},
	}
}

// done answers a write. The framework tells an operator about unknown fields in a
// response only, so there is one; what stays empty is dropped at the door.
func done(err error) (*logical.Response, error) {
	if err != nil {
		return nil, err
	}
	return new(logical.Response), nil
}

// listPath is the path that lists the names under a prefix, page by page.
func listPath(prefix, suffix, synopsis string) *framework.Path {
	return &framework.Path{
		Pattern:      prefix + "?",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix},
		Fields: map[string]*framework.FieldSchema{
			"after": {Type: framework.TypeString, Description: "Begin the list after this name."},
			"limit": {Type: framework.TypeInt, Description: "List at most so many names; 0 or less lists all."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: listOf(prefix),
				Summary:  synopsis,
				Responses: ok(map[string]*framework.FieldSchema{
					"keys": {Type: framework.TypeStringSlice, Description: "The names."},
				}),
			},
		},
		HelpSynopsis:    synopsis,
		HelpDescription: synopsis,
	}
}

func listOf(prefix string) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		limit := d.Get("limit").(int)
		if limit <= 0 {
			limit = -1
		}
		names, err := req.Storage.ListPage(ctx, prefix, d.Get("after").(string), limit)
		if err != nil {
			return nil, err
		}
		return logical.ListResponse(names), nil
	}
}
