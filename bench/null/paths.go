// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

func challengePath() *framework.Path {
	return &framework.Path{
		Pattern: "challenge",
		Fields: map[string]*framework.FieldSchema{
			"v":              {Type: framework.TypeInt},
			"role":           {Type: framework.TypeString},
			"ek_certificate": {Type: framework.TypeString},
			"ak_public":      {Type: framework.TypeString},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: forwarded(challenge),
		},
	}
}

func loginPath() *framework.Path {
	return &framework.Path{
		Pattern: "login",
		Fields: map[string]*framework.FieldSchema{
			"v":              {Type: framework.TypeInt},
			"role":           {Type: framework.TypeString},
			"challenge":      {Type: framework.TypeString},
			"audience":       {Type: framework.TypeString},
			"quote":          {Type: framework.TypeString},
			"signature":      {Type: framework.TypeString},
			"event_log_hash": {Type: framework.TypeString},
			"keys":           {Type: framework.TypeSlice},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation:         forwarded(login),
			logical.AliasLookaheadOperation: forwarded(lookAhead),
			logical.ResolveRoleOperation:    &framework.PathOperation{Callback: resolveRole},
		},
	}
}

func forwarded(callback framework.OperationFunc) *framework.PathOperation {
	return &framework.PathOperation{
		Callback:                  callback,
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
	}
}

// challengeSize is the length of a sealed challenge of the tpm method in base64.
const challengeSize = 448

// challenge answers as the tpm method answers a known host.
func challenge(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	caller, _ := req.Data["ak_public"].(string)
	return &logical.Response{Data: map[string]any{
		"challenge":     (name(caller) + strings.Repeat("c", challengeSize))[:challengeSize],
		"kind":          "known",
		"nonce":         strings.Repeat("n", 43) + "=", // 32 bytes
		"pcr_selection": map[string]any{"bank": "sha256", "pcrs": []any{0, 1, 2, 3, 4, 5, 6, 7}},
	}}, nil
}

// login gives every caller a token, as the tpm method's in size and kind.
func login(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Auth: &logical.Auth{
		DisplayName: "bench-0000",
		Policies:    []string{"omen-host-bench-0000"},
		Metadata: map[string]string{
			"host": "bench-0000", "role": "bench", "ek_class": "virtual", "boot": "not-checked",
		},
		Alias:           &logical.Alias{Name: alias(req), Metadata: map[string]string{"host": "bench-0000"}},
		TokenType:       logical.TokenTypeBatch,
		NoDefaultPolicy: true,
		LeaseOptions:    logical.LeaseOptions{TTL: 2 * time.Minute},
	}}, nil
}

func lookAhead(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Auth: &logical.Auth{Alias: &logical.Alias{Name: alias(req)}}}, nil
}

// name tells callers apart: the end of an attestation key's point, in base64.
func name(akPublic string) string { return akPublic[max(0, len(akPublic)-64):] }

// alias is the caller's, as long as a TPM ID.
func alias(req *logical.Request) string {
	challenge, _ := req.Data["challenge"].(string)
	return "sha256-" + challenge[:min(64, len(challenge))]
}

func resolveRole(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	role, _ := req.Data["role"].(string)
	return logical.ResolveRoleResponse(role)
}
