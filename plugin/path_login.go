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
			"certify":        {Type: framework.TypeSlice, Description: "For each key null, or info (TPMS_ATTEST) and signature of TPM2_Certify, base64."},
			"pcrs":           {Type: framework.TypeSlice, Description: "After event-log-needed: the PCR values, base64."},
			"event_log":      {Type: framework.TypeString, Description: "After event-log-needed: the event log, base64, where the firmware gives one."},
			"ticket":         {Type: framework.TypeString, Description: "One-time ticket that enrols the host, base64.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
			"wanted_name":    {Type: framework.TypeString, Description: "Name to show in the pending queue."},
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
// Only the last step can write, and only about a proven TPM.
func (b *backend) login(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	a, m, err := b.prove(ctx, req, d)
	if err != nil {
		return nil, b.refusal(req, err)
	}
	auth, err := a.auth(req, m)
	if err != nil {
		return nil, b.refusal(req, err)
	}
	resp := &logical.Response{Auth: auth}
	if a.role.RenewAfter > 0 {
		resp.Data = map[string]any{"renew_after": int64(a.role.RenewAfter.Seconds())}
	}
	return resp, nil
}

func (b *backend) prove(ctx context.Context, req *logical.Request, d *framework.FieldData) (*admission, *attest.LoginRequest, error) {
	m, err := decode(req, d, attest.DecodeLoginRequest)
	if err != nil {
		return nil, nil, err
	}
	c, err := b.challenges.open(m.Challenge, m.Role)
	if err != nil {
		return nil, nil, err
	}
	ak, err := attest.AKFromPoint(c.akX, c.akY)
	if err != nil {
		return nil, nil, err
	}
	settings, err := getConfig(ctx, b.reader(req.Storage))
	if err != nil {
		return nil, nil, err
	}
	quote, err := verify.Login(m, verify.Challenge{
		Kind: c.kind, AK: ak, Secret: c.secret[:], Selection: c.selection,
	}, settings.Audiences)
	if err != nil {
		return nil, nil, err
	}
	a, err := b.admit(ctx, req.Storage, proof{message: m, remote: remote(req), challenge: c, ak: ak, quote: quote})
	b.statistics.proven(c.tpmID(), b.wallClock(), err)
	return a, m, err
}

// auth makes the token's description. Nothing before this line holds one.
func (a *admission) auth(req *logical.Request, m *attest.LoginRequest) (*logical.Auth, error) {
	if req.Connection == nil && a.role.TokenStrictlyBindIP {
		return nil, attest.Refuse(attest.RuleInternal, "no address to bind the token to")
	}
	auth := &logical.Auth{
		DisplayName: a.host,
		Metadata: map[string]string{
			"host": a.host, "role": m.Role, "ek_class": string(a.class), "boot": a.boot,
		},
		Alias: &logical.Alias{
			Name: string(a.tpm),
			// Each change here is a write in OpenBao's identity store.
			Metadata: map[string]string{"host": a.host},
		},
	}
	if len(m.Keys) > 0 {
		auth.Metadata["key_sha256"] = hashes(m.Keys)
		auth.Metadata["key_claim"] = claims(m)
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

// claims says of each key whether it is proven to be in the TPM.
func claims(m *attest.LoginRequest) string {
	list := make([]string, len(m.Keys))
	for i, resident := range verify.ResidentKeys(m) {
		list[i] = "claimed"
		if resident {
			list[i] = "resident"
		}
	}
	return strings.Join(list, ",")
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
freshness and state mean that a new challenge may help, once, and event-log-needed
that it will with pcrs and event_log; every other rule is final until an operator
changes something. The token's metadata tells host, role, class of the endorsement
key, what was said about the boot, and the SHA-256 of each key with whether it is
resident: proven to be in the TPM, or claimed.
`
)
