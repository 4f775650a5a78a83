// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
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

// answer answers a write. A mistake is told to the operator. The framework tells
// about unknown fields in a response only, so there is one; what stays empty is
// dropped at the door.
func answer(err error) (*logical.Response, error) {
	var wrong mistake
	switch {
	case errors.As(err, &wrong):
		return logical.ErrorResponse("%s", wrong.Error()), nil
	case err != nil:
		return nil, err
	}
	return new(logical.Response), nil
}

// written is the operation of a path that writes: on the active node only.
func written(callback framework.OperationFunc, summary string) *framework.PathOperation {
	return &framework.PathOperation{
		Callback: callback, Summary: summary, Responses: noContent(),
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
	}
}

// listPath is the path that lists the names under a prefix, page by page.
func listPath(prefix, suffix, synopsis string) *framework.Path {
	return pagedPath(prefix+"?$", suffix, synopsis, synopsis, &framework.PathOperation{
		Callback: listOf(prefix),
		Summary:  synopsis,
		Responses: ok(map[string]*framework.FieldSchema{
			"keys": {Type: framework.TypeStringSlice, Description: "The names."},
		}),
	})
}

// pagedPath is a path that lists page by page and does nothing else.
func pagedPath(pattern, suffix, synopsis, description string, list *framework.PathOperation) *framework.Path {
	return &framework.Path{
		Pattern:         pattern,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix},
		Fields:          pageFields(),
		Operations:      map[logical.Operation]framework.OperationHandler{logical.ListOperation: list},
		HelpSynopsis:    synopsis,
		HelpDescription: description,
	}
}

func pageFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"after": {Type: framework.TypeString, Query: true, Description: "Begin the list after this name."},
		"limit": {Type: framework.TypeInt, Query: true, Description: "List at most so many names; 0 or less lists all."},
	}
}

func listOf(prefix string) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		names, err := page(ctx, req.Storage, prefix, d)
		if err != nil {
			return nil, err
		}
		return logical.ListResponse(names), nil
	}
}

func page(ctx context.Context, s logical.Storage, prefix string, d *framework.FieldData) ([]string, error) {
	limit := d.Get("limit").(int)
	if limit <= 0 {
		limit = -1
	}
	return s.ListPage(ctx, prefix, d.Get("after").(string), limit)
}

// listed lists the names under a prefix, each with what describe tells of its
// record.
func listed[T any](prefix string, describe func(*T) map[string]any, summary string) *framework.PathOperation {
	callback := func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		names, err := page(ctx, req.Storage, prefix, d)
		if err != nil {
			return nil, err
		}
		info := map[string]any{}
		for _, name := range names {
			record, err := load[T](ctx, req.Storage, prefix+name)
			if err != nil {
				return nil, err
			}
			if record != nil {
				info[name] = describe(record)
			}
		}
		return logical.ListResponseWithInfo(names, info), nil
	}
	return &framework.PathOperation{Callback: callback, Summary: summary, Responses: ok(detailFields())}
}

func detailFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"keys":     {Type: framework.TypeStringSlice, Description: "The names."},
		"key_info": {Type: framework.TypeMap, Description: "What is known about each."},
	}
}
