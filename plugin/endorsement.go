// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

// maxJudged is how many judged endorsement keys are kept.
const maxJudged = 1 << 14

// ekKeyType is the type of an endorsement key. A board that was certified has one of
// each at most.
type ekKeyType string

var ekKeyTypes = []ekKeyType{"rsa2048", "p256", "p384"}

// typeOf names the type of a key that package verify took.
func typeOf(key crypto.PublicKey) ekKeyType {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return ekKeyType(fmt.Sprintf("rsa%d", k.N.BitLen()))
	case *ecdsa.PublicKey:
		return ekKeyType(fmt.Sprintf("p%d", k.Curve.Params().BitSize))
	}
	return ""
}

// judged keeps endorsement keys that were judged good, by their certificate and the
// configuration that judged them, for as long as their chain is valid. Only keys that
// a configured vendor certified get in, each with one place whatever is sent along.
type judged struct {
	byEvidence *lru.Cache[[sha256.Size]byte, *verify.EK]
	byTPM      *lru.Cache[attest.TPMID, *verify.EK]
}

func newJudged() (*judged, error) {
	byEvidence, err := lru.New[[sha256.Size]byte, *verify.EK](maxJudged)
	if err != nil {
		return nil, err
	}
	byTPM, err := lru.New[attest.TPMID, *verify.EK](maxJudged)
	if err != nil {
		return nil, err
	}
	return &judged{byEvidence: byEvidence, byTPM: byTPM}, nil
}

// find is the judgement of a certificate that holds now for what was sent with it:
// the intermediates that it needed are there, and others change nothing.
func (j *judged) find(key [sha256.Size]byte, sent [][]byte, now time.Time) (*verify.EK, bool) {
	ek, ok := j.byEvidence.Get(key)
	if !ok || now.Before(ek.NotBefore) || now.After(ek.NotAfter) {
		return nil, false
	}
	for _, needed := range ek.Sent {
		if !slices.ContainsFunc(sent, func(der []byte) bool { return sha256.Sum256(der) == needed }) {
			return nil, false
		}
	}
	return ek, true
}

// evidence is the hash of the configuration and of an EK certificate without what an
// NV index holds around it.
func evidence(c *config, nv []byte) (key [sha256.Size]byte, err error) {
	certificate, err := verify.CertificateHash(nv)
	if err != nil {
		return key, attest.Refuse(attest.RuleEKCertificate, "parse: %v", err)
	}
	return sha256.Sum256(append(c.sum[:], certificate[:]...)), nil
}

// checkEK judges the endorsement key under the configuration of this moment, and
// whether the role takes its class and type. The login need not ask again: another
// role is another hash in the challenge.
func (b *backend) checkEK(ctx context.Context, rd reader, m *attest.ChallengeRequest, r *role) (*verify.EK, error) {
	ek, err := b.judgeEK(ctx, rd, m)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(r.EKClasses, ek.Class) {
		return nil, attest.Refuse(attest.RuleEKCertificate, "role %s does not take EKs of class %s", m.Role, ek.Class)
	}
	if kind := typeOf(ek.Key); len(r.EKKeyTypes) > 0 && !slices.Contains(r.EKKeyTypes, kind) {
		return nil, attest.Refuse(attest.RuleEKCertificate, "role %s does not take EKs of type %s", m.Role, kind)
	}
	return ek, nil
}

func (b *backend) judgeEK(ctx context.Context, rd reader, m *attest.ChallengeRequest) (*verify.EK, error) {
	if m.EKPublic != nil {
		return verify.CheckEKPublic(m.EKPublic)
	}
	c, err := getConfig(ctx, rd)
	if err != nil {
		return nil, err
	}
	key, err := evidence(c, m.EKCertificate)
	if err != nil {
		return nil, err
	}
	now := b.wallClock()
	if ek, ok := b.judged.find(key, m.Intermediates, now); ok {
		b.judged.byTPM.Add(ek.TPMID, ek) // a TPM can have several certificates
		return ek, nil
	}
	roots, err := b.trust.parse(c)
	if err != nil {
		return nil, err
	}
	ek, err := verify.CheckEK(m.EKCertificate, m.Intermediates, roots, now)
	if err != nil {
		return nil, err
	}
	b.judged.byEvidence.Add(key, ek)
	b.judged.byTPM.Add(ek.TPMID, ek)
	return ek, nil
}
