// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// AuthValue is the authorisation value of a TPM hierarchy. It does not print.
type AuthValue = tpm.AuthValue

// NewAuthValue takes an authorisation value of at most 64 bytes, none of them
// zero.
func NewAuthValue(value []byte) (AuthValue, error) { return tpm.NewAuthValue(value) }

// Errors of the TPM's transport that a caller has a hint for.
var (
	ErrAbsent   = tpm.ErrAbsent   // no TPM where the configuration says
	ErrBusy     = tpm.ErrBusy     // another program holds it, or it has no free slot
	ErrDenied   = tpm.ErrDenied   // this user may not open it
	ErrNoAnswer = tpm.ErrNoAnswer // a command was not answered in time, or the TPM went away

	ErrNoCertificate = tpm.ErrNoCertificate // the TPM has no certificate of its endorsement key
	ErrPCRMoved      = tpm.ErrPCRMoved      // PCRs are extended all the time
)

// ErrStartOver says that the TPM has other keys than those the challenge was
// asked for with. A new request, made once, carries the right ones.
var ErrStartOver = errors.New("the TPM's keys are not those of the request, start over")

// Config says which TPM proves this host and how.
type Config struct {
	// Device is a device node, unix:PATH or tcp:HOST:PORT; empty is
	// /dev/tpmrm0.
	Device string
	// OwnerAuth and EndorsementAuth authorise the hierarchies. Without the
	// owner's the attestation key cannot be kept in the TPM and is made anew
	// each time, which is slower and nothing else.
	OwnerAuth, EndorsementAuth AuthValue
	// Timeout bounds one TPM command; 0 is 90 seconds.
	Timeout time.Duration
	// EK names the endorsement key: rsa2048, p256 or p384; empty or "auto" is
	// the one on record, else the first of these that has a certificate.
	EK string
	// EKCertificate is the certificate (DER) of a TPM whose vendor delivers it
	// elsewhere than in the TPM; nil is the TPM's own.
	EKCertificate []byte
	// Uncertified says that no certificate vouches for the endorsement key. The
	// server must know the key itself.
	Uncertified bool
	// EKIntermediates are certificates (DER) between the endorsement key's and a
	// root that the server has, issuer of the former first.
	EKIntermediates [][]byte
	// EventLog is the path of the firmware's event log; "none" where the
	// firmware gives none; empty is DefaultEventLog.
	EventLog string
	// StateDir is where the record is kept; empty keeps none.
	StateDir string
	// LookOnly keeps nothing: the record is read and not written, and the
	// attestation key is not made persistent.
	LookOnly bool
	// Observe, if set, hears the name of every TPM command just before it is
	// sent: "Quote", "NV_Read".
	Observe func(command string)
}

// A Prover is an open TPM and what is known of it. It is for one goroutine.
type Prover struct {
	config   Config
	tpm      *tpm.TPM
	storage  *tpm.Storage // nil until it is asked for
	voucher  []byte       // Name of the attestation key that says which key that is
	doubted  bool         // the storage root on record is not to be used
	keys     *keys        // what the next request says; nil before it is known
	fresh    bool         // keys were read from the TPM, not from the record
	recorded *class       // the endorsement key this host stays with
}

// Open opens the TPM, sends it nothing, and looks up the record. Its error is
// or wraps ErrAbsent, ErrBusy or ErrDenied where one of them says it.
func Open(ctx context.Context, config Config) (*Prover, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	opened, err := tpm.Open(ctx, tpm.Config{
		Device: config.Device, OwnerAuth: config.OwnerAuth, EndorsementAuth: config.EndorsementAuth,
		Timeout: config.Timeout, Observe: config.Observe,
	})
	if err != nil {
		return nil, err
	}
	p := &Prover{config: config, tpm: opened}
	if known := load(config.StateDir); known != nil && (config.auto() || config.EK == known.ek.class.name) {
		p.recorded = known.ek.class
		if config.says(known.ek) {
			p.keys = known
		}
	}
	return p, nil
}

// Check says whether the configuration names things that exist in principle.
func (c Config) Check() error {
	if !c.auto() && classNamed(c.EK) == nil {
		return fmt.Errorf("endorsement key %q is none of auto, rsa2048, p256, p384", c.EK)
	}
	if err := c.checkEK(); err != nil {
		return err
	}
	if c.Device != "" {
		return tpm.CheckDevice(c.Device)
	}
	return nil
}

func (c Config) checkEK() error {
	if c.Uncertified && (c.EKCertificate != nil || c.EKIntermediates != nil) {
		return errors.New("an endorsement key without a certificate, and certificates for it")
	}
	if len(c.EKIntermediates) > attest.MaxIntermediates {
		return fmt.Errorf("%d EK intermediates, at most %d", len(c.EKIntermediates), attest.MaxIntermediates)
	}
	if c.EKCertificate == nil {
		return nil
	}
	ek, err := parseEndorsementKey(c.EKCertificate, fromFile)
	if err == nil && !c.auto() && ek.class.name != c.EK {
		err = fmt.Errorf("the EK certificate is for a %s key", ek.class.name)
	}
	return err
}

// source says where the word for the endorsement key comes from.
func (c Config) source() source {
	switch {
	case c.Uncertified:
		return fromNobody
	case c.EKCertificate != nil:
		return fromFile
	default:
		return fromTPM
	}
}

// says reports whether a key on record is what the configuration asks for.
func (c Config) says(ek *endorsementKey) bool {
	return ek.source == c.source() && (ek.source != fromFile || bytes.Equal(ek.certificate, c.EKCertificate))
}

func (c Config) auto() bool { return c.EK == "" || c.EK == "auto" }

// Close gives up the TPM.
func (p *Prover) Close() error {
	return errors.Join(p.closeStorage(context.Background()), p.tpm.Close())
}

// Request says who this host is: the first message of a login for role. With a
// record it costs the TPM nothing; without one the keys are looked up and, the
// first time, made.
func (p *Prover) Request(ctx context.Context, role string) (*attest.ChallengeRequest, error) {
	if p.keys == nil {
		if err := p.refresh(ctx); err != nil {
			return nil, err
		}
	}
	request := &attest.ChallengeRequest{
		V:             attest.Version,
		Role:          role,
		EKCertificate: p.keys.ek.certificate,
		Intermediates: p.config.EKIntermediates,
		AKPublic:      p.keys.ak.Public(),
	}
	if p.keys.ek.certificate == nil {
		request.EKPublic = p.keys.ek.spki
	}
	if err := request.Check(); err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	return request, nil
}

// TPMID is the name of the TPM of the last Request; empty before it.
func (p *Prover) TPMID() attest.TPMID {
	if p.keys == nil {
		return ""
	}
	return p.keys.ek.id
}

// refresh learns the keys from the TPM and keeps them on record.
func (p *Prover) refresh(ctx context.Context) error {
	ek, err := p.endorsementKey(ctx)
	if err != nil {
		return err
	}
	ak, handle, err := p.attestationKey(ctx)
	if err != nil {
		return err
	}
	p.keys, p.fresh, p.recorded = &keys{ek: ek, ak: ak, handle: handle}, true, ek.class
	if p.config.LookOnly {
		return nil
	}
	return p.keys.save(p.config.StateDir)
}

// Doubt drops what is said about this TPM because a record says so, so that the
// next Request asks the TPM itself. It reports whether there was such a thing:
// where it says no, asking again gives the same.
func (p *Prover) Doubt() bool {
	if p.keys == nil || p.fresh {
		return false
	}
	p.keys = nil
	return true
}
