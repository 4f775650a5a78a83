// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

const loginPath = "login"

func (b *backend) pathLogin() *framework.Path {
	forwarded := func(callback framework.OperationFunc, summary string) *framework.PathOperation {
		return &framework.PathOperation{
			Callback: callback, Summary: summary, Responses: ok(nil),
			ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		}
	}
	return &framework.Path{
		Pattern: loginPath,
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationVerb: "login",
		},
		Fields: map[string]*framework.FieldSchema{
			"v":              {Type: framework.TypeInt, Required: true, Description: "Version of the protocol: 1."},
			"role":           {Type: framework.TypeString, Required: true, Description: "Role of the challenge."},
			"challenge":      {Type: framework.TypeString, Required: true, Description: "The challenge, as it came."},
			"audience":       {Type: framework.TypeString, Required: true, Description: "Address that was dialled, https://host:port|namespace/|auth/mount."},
			"quote":          {Type: framework.TypeString, Required: true, Description: "TPMS_ATTEST, base64."},
			"signature":      {Type: framework.TypeString, Required: true, Description: "TPMT_SIGNATURE over the quote, base64."},
			"event_log_hash": {Type: framework.TypeString, Required: true, Description: "SHA-256 of the event log, or 32 zero bytes; base64."},
			"keys":           {Type: framework.TypeSlice, Description: "Public keys to attest, each DER SubjectPublicKeyInfo in base64, ascending."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation:         forwarded(b.login, "Log in with the answer to a challenge."),
			logical.AliasLookaheadOperation: forwarded(b.lookAhead, "Tell which TPM a login is about."),
			// The role stands in the message itself: any node can tell.
			logical.ResolveRoleOperation: &framework.PathOperation{Callback: resolveRole, Summary: "Tell which role a request is about."},
		},
		HelpSynopsis:    loginSynopsis,
		HelpDescription: loginDescription,
	}
}

// login is the whole way from a host's answer to its token. In this order, each
// step an exit:
//
//   - read the message (size, syntax)
//   - open the challenge and mark it used, for good (challenge, freshness)
//   - judge the quote against it: see [verify.Login]
//   - decide, over one state of the storage: see [admit]
//
// Only the last step can write, and only a pin.
func (b *backend) login(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	auth, err := b.prove(ctx, req, d)
	if err != nil {
		return nil, b.refusal(req, err)
	}
	return &logical.Response{Auth: auth}, nil
}

func (b *backend) prove(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Auth, error) {
	m, err := decode(req, d, attest.DecodeLoginRequest)
	if err != nil {
		return nil, err
	}
	c, err := b.challenges.open(m.Challenge, m.Role)
	if err != nil {
		return nil, err
	}
	ak, err := attest.AKFromPoint(c.akX, c.akY)
	if err != nil {
		return nil, err
	}
	settings, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	quote, err := verify.Login(m, verify.Challenge{
		Kind: c.kind, AK: ak, Secret: c.secret[:], Selection: c.selection,
	}, settings.Audiences)
	if err != nil {
		return nil, err
	}
	a, err := b.admit(ctx, req.Storage, proof{
		role: m.Role, remote: remote(req), challenge: c, ak: ak, quote: quote,
	})
	if err != nil {
		return nil, err
	}
	return a.auth(req, m)
}

// auth makes the token's description. Nothing before this line holds one.
func (a *admission) auth(req *logical.Request, m *attest.LoginRequest) (*logical.Auth, error) {
	if req.Connection == nil && a.role.TokenStrictlyBindIP {
		return nil, attest.Refuse(attest.RuleInternal, "no address to bind the token to")
	}
	auth := &logical.Auth{
		DisplayName: a.host,
		Metadata:    map[string]string{"host": a.host, "role": m.Role, "boot": a.boot},
		Alias: &logical.Alias{
			Name: string(a.tpm),
			// Each change here is a write in OpenBao's identity store.
			Metadata: map[string]string{"host": a.host},
		},
	}
	if len(m.Keys) > 0 {
		auth.Metadata["key_sha256"] = hashes(m.Keys)
		auth.Metadata["key_claim"] = "claimed"
	}
	if err := a.role.PopulateTokenAuth(auth, req); err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "token: %v", err)
	}
	auth.Renewable = false
	auth.Policies = slices.Clone(a.role.TokenPolicies)
	if a.role.HostPolicy {
		auth.Policies = append(auth.Policies, "omen-host-"+a.host)
	}
	return auth, nil
}

func hashes(keys [][]byte) string {
	list := make([]string, len(keys))
	for i, key := range keys {
		sum := sha256.Sum256(key)
		list[i] = hex.EncodeToString(sum[:])
	}
	return strings.Join(list, ",")
}

// lookAhead tells OpenBao which alias a login would have, and spends nothing.
func (b *backend) lookAhead(_ context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	m, err := decode(req, d, attest.DecodeLoginRequest)
	if err != nil {
		return nil, b.refusal(req, err)
	}
	c, err := b.challenges.look(m.Challenge, m.Role)
	if err != nil {
		return nil, b.refusal(req, err)
	}
	return &logical.Response{Auth: &logical.Auth{Alias: &logical.Alias{Name: string(c.tpmID())}}}, nil
}

// resolveRole tells OpenBao whose quota a request counts against. It is asked
// about challenges too, so it looks at the role alone.
func resolveRole(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	name, _ := req.Data["role"].(string)
	if name == "" || len(name) > maxRoleName {
		return nil, logical.ErrInvalidRequest
	}
	return logical.ResolveRoleResponse(name)
}

const (
	loginSynopsis    = "Log in with a quote that answers a challenge."
	loginDescription = `
Unauthenticated. A refusal is the text "omen: refused: <rule>": challenge,
freshness and state mean that a new challenge may help, once; every other rule is
final until an operator changes something. The token's metadata tells host, role,
whether the boot was checked, and the SHA-256 of each key that the host claims.
`
)
