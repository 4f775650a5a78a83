// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// pending is a TPM that has proven itself and waits for an operator. What it says
// about vendor and subject comes from a certificate that a vendor signed; the
// wanted name is the host's own word.
type pending struct {
	Role          string         `json:"role"`
	WantedName    string         `json:"wanted_name,omitempty"`
	EKClass       attest.EKClass `json:"ek_class"`
	Manufacturer  string         `json:"manufacturer"`
	Model         string         `json:"model"`
	Firmware      string         `json:"firmware"`
	Subject       string         `json:"ek_subject"`
	CertificateID string         `json:"ek_certificate_sha256"`
	PCRDigest     string         `json:"pcr_digest"`
	Remote        string         `json:"source_address"`
	FirstSeen     time.Time      `json:"first_seen"`
	AKName        string         `json:"ak_name,omitempty"` // of the AK that it proved, hex
}

// maxPendingAge is when tidy drops a TPM that nobody looked at; it can ask again.
const maxPendingAge = 7 * 24 * time.Hour

// queue refuses a proven TPM that no record lists and puts it, once, where an
// operator sees it.
func (b *backend) queue(ctx context.Context, r reader, p proof) (*admission, error) {
	id := p.challenge.tpmID()
	waiting, err := get[pending](ctx, r, pendingPrefix+string(id))
	if err != nil {
		return nil, err
	}
	refused := attest.Refuse(attest.RulePending, "%s waits for approval", id)
	if waiting != nil {
		return nil, refused
	}
	entry, err := b.newPending(p)
	if err != nil {
		return nil, err
	}
	settings, err := getConfig(ctx, r)
	if err != nil {
		return nil, err
	}
	others, err := r.storage.ListPage(ctx, pendingPrefix, "", settings.PendingLimit+1)
	if err != nil {
		return nil, err
	}
	if len(others) >= settings.PendingLimit {
		return nil, attest.Refuse(attest.RulePending, "%d hosts wait for approval already: no place for %s", len(others), id)
	}
	a := &admission{enrols: true}
	a.trace(func(ctx context.Context, s logical.Storage) error {
		return save(ctx, s, pendingPrefix+string(id), entry)
	})
	return a, refused
}

// waitsNoMore takes a TPM that became a host from the queue, by whichever way in
// it came: what is denied there must be nobody's.
func waitsNoMore(ctx context.Context, s logical.Storage, id attest.TPMID) error {
	waiting, err := s.Get(ctx, pendingPrefix+string(id))
	if err != nil || waiting == nil {
		return err
	}
	return s.Delete(ctx, pendingPrefix+string(id))
}

func (b *backend) newPending(p proof) (*pending, error) {
	ek, ok := b.judged.byTPM.Get(p.challenge.tpmID())
	if !ok || ek.Certificate != p.challenge.ekCertificate {
		return nil, attest.Refuse(attest.RuleState, "what the EK certificate says is not kept any more")
	}
	return &pending{
		Role: p.message.Role, WantedName: p.message.WantedName, EKClass: p.challenge.class,
		Manufacturer: printable(ek.Manufacturer), Model: printable(ek.Model), Firmware: printable(ek.Firmware),
		Subject: printable(ek.Subject), CertificateID: hex.EncodeToString(ek.Certificate[:]),
		PCRDigest: hex.EncodeToString(p.quote.PCRDigest[:]), Remote: p.remote,
		FirstSeen: b.wallClock().UTC().Truncate(time.Second), AKName: hex.EncodeToString(p.ak.Name()),
	}, nil
}
