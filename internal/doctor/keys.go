// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/tpm"
)

// ekLook is the endorsement key as the TPM has it now.
type ekLook struct {
	identity *host.Identity
	err      error
}

func (p *patient) identified(ctx context.Context) ekLook {
	bank := p.bank(ctx)
	return p.ek.get(func() (look ekLook) {
		prover, err := host.Open(ctx, p.agent.TPM())
		if err != nil {
			return ekLook{err: err}
		}
		look.identity, look.err = prover.Identity(ctx, boot(bank))
		look.err = errors.Join(look.err, prover.Close())
		return look
	})
}

func keyChecks() []Check {
	needs := []string{"tpm-device"}
	return []Check{
		{
			Name: "tpm-ek-certificate", Area: AreaTPM, needs: needs, patience: long, run: checkEKCertificate,
			Asks:   "the endorsement key has a certificate: it is there, belongs to the key in the TPM, has the shape of one and has not expired",
			Remedy: "choose another key with ek in [tpm]; or ask the vendor for the certificate and name its file with ek_certificate",
		},
		{
			Name: "tpm-attestation-key", Area: AreaTPM, needs: needs, run: checkAttestationKey,
			Asks:   "handle `0x81010020` holds our attestation key, or is free for it",
			Remedy: "move what lies there (tpm2_evictcontrol): until then the attestation key is made anew for each login, which is slower and nothing else",
		},
		{
			Name: "tpm-storage-root", Area: AreaTPM, needs: needs, run: checkStorageRoot,
			Asks:   "the storage root key is the one on record: what is sealed comes back only under it",
			Remedy: "the TPM was cleared, or is another one: omen-agent renew makes new keys. If nobody did that, find out what sits between this program and the TPM",
		},
	}
}

func checkEKCertificate(ctx context.Context, p *patient) []Result {
	look := p.identified(ctx)
	if look.err != nil {
		return p.failed("", look.err)
	}
	i := look.identity
	if i.EKCertificate == nil {
		return warning(string(i.TPMID), "an operator lists this TPM ID with allow_uncertified_ek, having seen the machine; with a certificate, take ek_certificate = \"none\" out of [tpm]",
			"%s key without a certificate: nobody vouches that it is in a TPM", i.EK)
	}
	if what := badEK(i.EKCertificate, time.Now()); what != "" {
		return problem(string(i.TPMID), "", "%s key: its certificate %s", i.EK, what)
	}
	return ok(string(i.TPMID), "%s key, certified", i.EK)
}

// tcgEK is tcg-kp-EKCertificate, the usage of an endorsement key's certificate (TCG EK
// Credential Profile 2.6, section 3.2).
var tcgEK = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

// badEK says what is wrong in an EK certificate, before OpenBao looks closer; "" where
// nothing shows. One that package x509 does not parse is left to OpenBao, which
// forgives vendors more.
func badEK(der []byte, now time.Time) string {
	c, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return ""
	case now.After(c.NotAfter):
		return "expired " + c.NotAfter.Format(time.DateOnly)
	case now.Before(c.NotBefore):
		return "begins " + c.NotBefore.Format(time.DateOnly) + ": look at this host's clock"
	case c.IsCA:
		return "is a CA's"
	case !slices.ContainsFunc(c.UnknownExtKeyUsage, tcgEK.Equal):
		return "lacks the usage tcg-kp-EKCertificate"
	}
	return ""
}

// public reads what lies at a persistent handle.
func (p *patient) public(ctx context.Context, handle tpm2.TPMHandle) (public []byte, err error) {
	err = p.withTPM(ctx, func(opened *tpm.TPM) (err error) {
		public, err = opened.Public(ctx, handle)
		return err
	})
	return public, err
}

func checkAttestationKey(ctx context.Context, p *patient) []Result {
	handle := fmt.Sprintf("0x%08x", uint32(attest.AKHandle))
	public, err := p.public(ctx, attest.AKHandle)
	switch {
	case err != nil:
		return p.failed(handle, err)
	case public == nil:
		return ok(handle, "free; the first renewal puts the attestation key there")
	}
	ak, err := attest.ParseAK(public)
	if err != nil {
		return warning(handle, "", "another program's key lies there")
	}
	return ok(handle, "attestation key %s", hex.EncodeToString(ak.Name()))
}

// checkStorageRoot holds what lies at the usual handle against the record.
func checkStorageRoot(ctx context.Context, p *patient) []Result {
	handle := fmt.Sprintf("0x%08x", uint32(tpm.SRKHandle))
	public, err := p.public(ctx, tpm.SRKHandle)
	if err != nil {
		return p.failed(handle, err)
	}
	known := host.RecordedRoot(p.agent.TPM().StateDir)
	standard := public != nil && tpm.CheckStorageRoot(public) == nil
	switch {
	case known != nil && known.Parent == tpm.SRKHandle && !bytes.Equal(public, known.Public):
		return problem(handle, "", "another key than the one on record, or none")
	case known != nil && standard && !bytes.Equal(public, known.Public):
		return problem(handle, "", "another storage root than the one on record")
	case standard:
		return ok(handle, "the standard P-256 storage root key")
	case public != nil:
		return ok(handle, "another program's key; ours is made of the owner hierarchy for each use")
	}
	return ok(handle, "empty; the storage root is made of the owner hierarchy for each use")
}
