// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

const challengePath = "challenge"

func (b *backend) pathChallenge() *framework.Path {
	return &framework.Path{
		Pattern:      challengePath,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"v":              {Type: framework.TypeInt, Required: true, Description: "Version of the protocol: 1."},
			"role":           {Type: framework.TypeString, Required: true, Description: "Role to log in with."},
			"ek_certificate": {Type: framework.TypeString, Description: "Certificate of the endorsement key, DER in base64."},
			"ek_public":      {Type: framework.TypeString, Description: "Where there is none, the endorsement key itself, DER SubjectPublicKeyInfo in base64."},
			"intermediates":  {Type: framework.TypeSlice, Description: "Certificates between it and a root, each DER in base64."},
			"ak_public":      {Type: framework.TypeString, Required: true, Description: "TPMT_PUBLIC of the attestation key, base64."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.challenge,
				Summary:                     "Ask for a challenge.",
				Responses:                   ok(challengeResponseFields()),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "request", OperationSuffix: "challenge"},
			},
		},
		HelpSynopsis:    challengeSynopsis,
		HelpDescription: challengeDescription,
	}
}

func challengeResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"challenge":     {Type: framework.TypeString, Required: true, Description: "Sealed challenge: one login within 60 seconds."},
		"pcr_selection": {Type: framework.TypeMap, Required: true, Description: "PCRs to quote: bank and pcrs."},
		"kind":          {Type: framework.TypeString, Required: true, Description: "How to answer: activate or known."},
		"credential":    {Type: framework.TypeMap, Description: "For activate, the secret wrapped for the TPM: blob and secret."},
		"nonce":         {Type: framework.TypeString, Description: "For known, the secret."},
	}
}

// challenge answers anybody who names a role and shows a certified EK and an AK
// of our shape. It looks at the role and the pin, at no host record, and writes
// nothing.
func (b *backend) challenge(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	c, err := b.newChallenge(ctx, req, d)
	if err != nil {
		return nil, b.refusal(req, err)
	}
	return c, nil
}

func (b *backend) newChallenge(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if req.WrapInfo != nil && req.WrapInfo.TTL > 0 {
		return nil, attest.Refuse(attest.RuleSyntax, "OpenBao would store a wrapped answer for %s", req.WrapInfo.TTL)
	}
	m, err := decode(req, d, attest.DecodeChallengeRequest)
	if err != nil {
		return nil, err
	}
	ak, err := attest.ParseAK(m.AKPublic)
	if err != nil {
		return nil, err
	}
	rd := b.reader(req.Storage)
	r, err := get[role](ctx, rd, rolePrefix+m.Role)
	if err != nil {
		return nil, err
	}
	if r == nil || !r.WayIn.known() {
		return nil, attest.Refuse(attest.RuleRole, "no such role, or one without a way in")
	}
	ek, err := b.checkEK(ctx, rd, m, r)
	if err != nil {
		return nil, err
	}
	s, err := b.fill(ctx, rd, m, r, ek, ak)
	if err != nil {
		return nil, err
	}
	b.statistics.challenge()
	return b.answer(s, ek, ak)
}

// fill gathers what the login will be held against.
func (b *backend) fill(
	ctx context.Context, rd reader, m *attest.ChallengeRequest, r *role, ek *verify.EK, ak *attest.AK,
) (*sealed, error) {
	settings, err := getConfig(ctx, rd)
	if err != nil {
		return nil, err
	}
	p, err := get[pin](ctx, rd, pinPrefix+string(ek.TPMID))
	if err != nil {
		return nil, err
	}
	known, err := pinnedAK(p)
	if err != nil {
		return nil, err
	}
	x, y := ak.Point()
	c := &sealed{
		kind:          attest.KindActivate,
		role:          sha256.Sum256([]byte(m.Role)),
		settings:      r.settings,
		config:        settings.sum,
		tpm:           tpmBytes(ek.TPMID),
		ekCertificate: ek.Certificate,
		issuerSerial:  ek.IssuerSerial,
		class:         ek.Class,
		akX:           x,
		akY:           y,
		selection:     r.selection(),
	}
	if sameAK(known, ak) && !r.AlwaysActivate {
		c.kind = attest.KindKnown
	}
	if _, err := io.ReadFull(b.random, c.secret[:]); err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "random secret: %v", err)
	}
	return c, nil
}

func (b *backend) answer(s *sealed, ek *verify.EK, ak *attest.AK) (*logical.Response, error) {
	token, err := b.challenges.seal(s)
	if err != nil {
		return nil, err
	}
	c := attest.Challenge{Challenge: token, PCRSelection: s.selection, Kind: s.kind}
	if s.kind == attest.KindKnown {
		c.Nonce = s.secret[:]
	} else if c.Credential, err = verify.Credential(b.random, ek, ak, s.secret[:]); err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "%v", err)
	}
	data, err := fields(c)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: data}, nil
}

// fields turns a message into the data of a response, by the message's own JSON.
func fields(message any) (map[string]any, error) {
	b, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	data := map[string]any{}
	if err := json.Unmarshal(b, &data); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return data, nil
}

// decode reads a host's message as strictly as package attest does, by the same
// code: OpenBao has taken the JSON apart, so it is put together again. The
// framework would overlook fields that the path does not have.
func decode[M any](req *logical.Request, d *framework.FieldData, read func([]byte) (*M, error)) (*M, error) {
	for name := range req.Data {
		if d.Schema[name] == nil {
			return nil, attest.Refuse(attest.RuleSyntax, "field %q is not of this message", name)
		}
	}
	b, err := json.Marshal(req.Data)
	if err != nil {
		return nil, attest.Refuse(attest.RuleSyntax, "%v", err)
	}
	m, err := read(b)
	if err != nil {
		return nil, err
	}
	return m, nil
}

const (
	challengeSynopsis    = "Ask for a challenge; the answer to it is a login."
	challengeDescription = `
Unauthenticated, and says no more to strangers than whether a role exists, which
endorsement keys it takes, which PCRs it asks for, and whether an attestation key is
pinned. Nothing is stored: the challenge holds, sealed, all
that the server needs to remember, for 60 seconds, in this process and on this
mount only.
`
)
