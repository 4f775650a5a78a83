// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"time"
)

// How long a refused set is held against us.
const (
	heldAtMost  = time.Hour
	heldAtLeast = 2 * time.Minute
)

// heldName is the file of the hold in the state folder.
const heldName = "refused.json"

// A hold keeps renewals by the clock back for a while: a new set was installed and
// not served, and it was taken back. Each such attempt costs the services two
// restarts, and nothing says that the next one would end in another way. It holds
// for the configuration that it came from, and not for who renews by hand.
type hold struct {
	Configuration string    `json:"configuration"` // see Agent.fingerprint
	Until         time.Time `json:"until"`
	Failure       *Failure  `json:"failure"`
}

// NotServed reports that an installation came to its restarts and failed there.
func NotServed(err error) bool {
	var step *StepError
	return errors.As(err, &step) && (step.Step == StepReload || step.Step == StepProbe)
}

// holdBack writes down a set that was refused, and forgets it when one is served.
// What only stopped because the agent was told to stop says nothing.
func (a *Agent) holdBack(ctx context.Context, err error) {
	switch {
	case err == nil:
		if err := a.drop(heldName); err != nil {
			a.log.Warn("the hold on renewals is not lifted", "error", err)
		}
	case ctx.Err() == nil && NotServed(err):
		h := hold{Configuration: a.fingerprint(), Until: a.now().Add(a.holdTime()), Failure: a.failure(err)}
		if err := a.keep(heldName, h); err != nil {
			a.log.Warn("the hold on renewals is not written", "error", err)
		}
	}
}

// holdTime is an hour, or less where certificates that serve now end sooner: there
// are a few more attempts before they do.
func (a *Agent) holdTime() time.Duration {
	wait := heldAtMost
	for _, s := range a.sets() {
		current, err := s.install.Current()
		if err != nil {
			continue
		}
		for _, c := range current.Certificates {
			wait = min(wait, c.NotAfter.Sub(a.now())/4)
		}
	}
	return max(wait, heldAtLeast)
}

// heldUntil is until when renewals by the clock are held back, since a new set was not
// served; zero for not. A hold of another configuration, and one longer than any of
// ours, is none.
func (a *Agent) heldUntil() time.Time {
	text, err := readSmall(filepath.Join(a.state, heldName))
	var h hold
	if err != nil || json.Unmarshal(text, &h) != nil || h.Configuration != a.fingerprint() {
		return time.Time{}
	}
	if h.Until.After(a.now().Add(heldAtMost)) {
		return time.Time{}
	}
	return h.Until
}

// fingerprint is the SHA-256 of what a renewal is made from.
func (a *Agent) fingerprint() string {
	c := a.config
	text, err := json.Marshal([]any{c.OpenBao, c.TPM, c.Seal, c.PKI, c.Keylime, c.Certificates})
	if err != nil { // it came out of TOML
		a.log.Warn("configuration cannot be compared", "error", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
