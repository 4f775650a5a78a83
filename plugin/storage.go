// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// Where things are stored. The records under tpm/, certificate/, serial/ and ak/
// are the unique indexes: an endorsement key belongs to one host, however it is
// named, and an AK Name to one TPM ID.
const (
	configKey       = "config"
	rolePrefix      = "role/"
	hostPrefix      = "host/"
	tpmPrefix       = "tpm/"         // TPM ID → owner
	certPrefix      = "certificate/" // SHA-256 of an EK certificate → owner
	serialPrefix    = "serial/"      // SHA-256 of an EK certificate's issuer key and serial → owner
	pinPrefix       = "pin/"         // TPM ID → pin
	akPrefix        = "ak/"          // AK Name, hex → akOwner
	tombstonePrefix = "tombstone/"   // TPM ID, or certificate- or serial- and a hash → tombstone
	ticketPrefix    = "ticket/"      // SHA-256 of a ticket → ticket
	pendingPrefix   = "pending/"     // TPM ID → pending
	baselinePrefix  = "baseline/"
	verdictPrefix   = "verdict/" // host/role → report
	seenPrefix      = "seen/"    // shard → sightings
)

// owner says whose a TPM is.
type owner struct {
	Host string `json:"host"`
}

// pin is what logins have proven about a TPM. It changes when the AK or what was
// booted changes, and not with each login.
type pin struct {
	AK           []byte `json:"ak"` // X ‖ Y
	ResetCount   uint32 `json:"reset_count"`
	RestartCount uint32 `json:"restart_count"`
	Firmware     uint64 `json:"firmware"` // of the TPM, vendor specific
	// Accepted are, by role, the states of the machine that were judged and
	// accepted.
	Accepted map[string]accepted `json:"accepted,omitempty"`
}

// accepted is a verdict that need not be found again.
type accepted struct {
	Policy string    `json:"policy"`     // hash of role and baselines that it was judged by
	Digest string    `json:"pcr_digest"` // of the quote
	Boot   string    `json:"boot"`
	Until  time.Time `json:"until,omitzero"`
	// WouldRefuse are the monitored checks that failed.
	WouldRefuse []string `json:"would_refuse,omitempty"`
}

func (p *pin) ak() (*attest.AK, error) {
	if len(p.AK) != 64 {
		return nil, attest.Refuse(attest.RuleInternal, "stored pin has %d bytes", len(p.AK))
	}
	ak, err := attest.AKFromPoint([32]byte(p.AK[:32]), [32]byte(p.AK[32:]))
	if err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored pin: %v", err)
	}
	return ak, nil
}

// akOwner says in which TPM an AK is.
type akOwner struct {
	TPMID attest.TPMID `json:"tpm_id"`
}

func akKey(ak *attest.AK) string { return akPrefix + hex.EncodeToString(ak.Name()) }

// forget removes what logins have learnt about a TPM: its pin and the pinned
// AK's place in the index.
func forget(ctx context.Context, s logical.Storage, id attest.TPMID) error {
	p, err := load[pin](ctx, s, pinPrefix+string(id))
	if err != nil || p == nil {
		return err
	}
	ak, err := p.ak()
	if err != nil {
		return err
	}
	if err := s.Delete(ctx, akKey(ak)); err != nil {
		return err
	}
	return s.Delete(ctx, pinPrefix+string(id))
}

// setPin pins an AK to a TPM in place of the one before.
func setPin(ctx context.Context, s logical.Storage, id attest.TPMID, ak *attest.AK, p *pin) error {
	if err := forget(ctx, s, id); err != nil {
		return err
	}
	if err := save(ctx, s, pinPrefix+string(id), p); err != nil {
		return err
	}
	return save(ctx, s, akKey(ak), akOwner{TPMID: id})
}
