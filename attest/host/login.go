// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// A Claim is what the quote vouches for beside the state of the machine.
type Claim struct {
	Role     string   // the role of the request
	Audience string   // the server as it was dialled, see attest.Audience
	Keys     [][]byte // DER SubjectPublicKeyInfo of the keys to be certified, in any order; may be empty
	// Resident are those of Keys that are in this TPM, by their DER: the TPM says so
	// itself, with its attestation key.
	Resident map[string]tpm.Blob

	// Measurements sends the PCR values and the event log along: what the server
	// wants after it said event-log-needed. It costs the TPM one command for each
	// eight PCRs.
	Measurements bool
	// Ticket, if set, gives the ticket that enrols this host, or nil for none. It is
	// asked last, when the quote is all that is left to do, and may be asked again
	// in the same Login.
	Ticket func(context.Context) (attest.Ticket, error)
	// WantedName is a remark for the operator who approves new hosts.
	WantedName string
}

// errTicket marks that the ticket is what could not be had: not a matter of keys.
var errTicket = errors.New("get ticket")

// Login answers a challenge that was asked for with the last Request. With the
// attestation key on record and a challenge of kind "known" it costs the TPM
// one command, and one more for each key in it that is still loaded. If the record
// turns out wrong, the keys are looked up once more; if they are others than the
// request said, the error is ErrStartOver. A key that is not under the storage root
// that Storage gave is ErrStorage.
func (p *Prover) Login(ctx context.Context, claim Claim, challenge *attest.Challenge) (*attest.LoginRequest, error) {
	if err := challenge.Check(); err != nil {
		return nil, fmt.Errorf("check challenge: %w", err)
	}
	if p.keys == nil {
		return nil, errors.New("answer challenge: none was asked for")
	}
	login, err := p.answer(ctx, claim, challenge)
	if err == nil || p.fresh || !mayBeTheRecord(ctx, err) {
		return login, err
	}
	before := p.keys
	if refreshed := p.refresh(ctx); refreshed != nil {
		return nil, errors.Join(err, refreshed)
	}
	if !p.keys.same(before) {
		return nil, ErrStartOver
	}
	return p.answer(ctx, claim, challenge)
}

// mayBeTheRecord says whether other keys than those on record could mend err.
func mayBeTheRecord(ctx context.Context, err error) bool {
	for _, other := range []error{tpm.ErrNoAnswer, tpm.ErrBusy, ErrEventLog, ErrPCRMoved, ErrStorage, errTicket} {
		if errors.Is(err, other) {
			return false
		}
	}
	return ctx.Err() == nil
}

func (p *Prover) answer(ctx context.Context, claim Claim, challenge *attest.Challenge) (*attest.LoginRequest, error) {
	login := &attest.LoginRequest{
		V:          attest.Version,
		Role:       claim.Role,
		Challenge:  challenge.Challenge,
		Audience:   claim.Audience,
		Keys:       slices.SortedFunc(slices.Values(claim.Keys), bytes.Compare),
		WantedName: claim.WantedName,
	}
	err := p.withAK(ctx, func(ak tpm.Key) error {
		secret, err := p.secret(ctx, ak, challenge)
		if err != nil {
			return err
		}
		defer clear(secret)
		return p.quote(ctx, ak, claim, challenge, secret, login)
	})
	if err != nil {
		return nil, fmt.Errorf("answer challenge: %w", err)
	}
	if err := login.Check(); err != nil {
		return nil, fmt.Errorf("answer challenge: %w", err)
	}
	return login, nil
}

// secret is S: unwrapped by the endorsement key, which can do so only for this
// attestation key, or as it was sent.
func (p *Prover) secret(ctx context.Context, ak tpm.Key, challenge *attest.Challenge) (secret []byte, err error) {
	if challenge.Kind == attest.KindKnown {
		return bytes.Clone(challenge.Nonce), nil
	}
	credential := tpm.Credential{Blob: challenge.Credential.Blob, Secret: challenge.Credential.Secret}
	err = p.tpm.WithPrimary(ctx, p.keys.ek.primary(), func(ek tpm.Key) (err error) {
		secret, err = p.tpm.ActivateCredential(ctx, ak, ek, p.keys.ek.class.branches, credential)
		return err
	})
	if err == nil && len(secret) != attest.SecretSize {
		return nil, fmt.Errorf("activate credential: a secret of %d bytes", len(secret))
	}
	return secret, err
}

// quote fills in what the TPM says, and makes sure that it was our key that said
// it.
func (p *Prover) quote(ctx context.Context, ak tpm.Key, claim Claim, challenge *attest.Challenge, secret []byte, login *attest.LoginRequest) error {
	log, err := ReadEventLog(p.config.EventLog)
	if err != nil {
		return err
	}
	if claim.Ticket != nil {
		if login.Ticket, err = claim.Ticket(ctx); err != nil {
			return fmt.Errorf("%w: %w", errTicket, err)
		}
	}
	hash := hashEventLog(log)
	said := attest.Binding{
		Kind: challenge.Kind, Secret: secret, Audience: login.Audience, Keys: login.Keys, EventLogHash: hash, Ticket: login.Ticket,
	}
	if err := p.certify(ctx, ak, claim, said, login); err != nil {
		return err
	}
	binding := attest.QuoteBinding(said)
	login.EventLogHash = hash[:]
	if !claim.Measurements {
		return p.sign(ctx, ak, binding, challenge.PCRSelection, login)
	}
	login.EventLog = log
	return p.signMeasured(ctx, ak, binding, challenge.PCRSelection, login)
}

// sign has the TPM quote, once.
func (p *Prover) sign(ctx context.Context, ak tpm.Key, binding [sha256.Size]byte, selection attest.Selection, login *attest.LoginRequest) (err error) {
	login.Quote, login.Signature, err = p.tpm.Quote(ctx, ak, binding[:], selection.TPM())
	if err != nil {
		return err
	}
	return verify(p.keys.ak, login.Quote, login.Signature)
}

// verify is for us alone, to find a record that has become wrong; the server
// looks closer.
func verify(ak *attest.AK, quote, signature []byte) error {
	parsed, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return fmt.Errorf("read signature: %w", err)
	}
	ecc, err := parsed.Signature.ECDSA()
	if err != nil {
		return fmt.Errorf("read signature: %w", err)
	}
	digest := sha256.Sum256(quote)
	r, s := new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)
	if !ecdsa.Verify(ak.Key(), digest[:], r, s) {
		return errors.New("the quote is signed by another key")
	}
	return nil
}
