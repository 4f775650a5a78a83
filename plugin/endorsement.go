// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

// maxJudged is how many judged endorsement keys are kept.
const maxJudged = 1 << 14

// judged keeps endorsement keys that were judged good, by the bytes they were
// judged by and the configuration that judged them, for as long as their chain is
// valid. Only keys that a configured vendor certified get in.
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

// evidence is the hash of all that a judgement goes by.
func evidence(c *config, m *attest.ChallengeRequest) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(c.sum[:])
	for _, der := range append([][]byte{m.EKCertificate}, m.Intermediates...) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(der))))
		h.Write(der)
	}
	h.Sum(sum[:0])
	return sum
}

// checkEK judges the endorsement key under the configuration of this moment, and
// whether the role takes its class.
func (b *backend) checkEK(ctx context.Context, rd reader, m *attest.ChallengeRequest, r *role) (*verify.EK, error) {
	ek, err := b.judgeEK(ctx, rd, m)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(r.EKClasses, ek.Class) {
		return nil, attest.Refuse(attest.RuleEKCertificate, "role %s does not take EKs of class %s", m.Role, ek.Class)
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
	now, key := b.wallClock(), evidence(c, m)
	if ek, ok := b.judged.byEvidence.Get(key); ok && !now.Before(ek.NotBefore) && !now.After(ek.NotAfter) {
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
