// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"funlab.casa/omen/attest"
)

// Server is what is attacked: the two calls of the protocol. A message is JSON,
// or what an attack sends in its place. An error means that there was no answer;
// a refusal is an answer.
type Server interface {
	Challenge(ctx context.Context, message []byte) (*Answer, error)
	Login(ctx context.Context, message []byte) (*Answer, error)
}

// Answer is what a server said, in the words of OpenBao's HTTP API.
type Answer struct {
	Status int             `json:"-"`
	Errors []string        `json:"errors"`
	Data   json.RawMessage `json:"data"` // of a challenge
	Auth   json.RawMessage `json:"auth"` // of a login
}

// Challenge reads the answer to a challenge request; a refusal is a
// *RefusedError.
func (a *Answer) Challenge() (*attest.Challenge, error) {
	if a.Status != 200 || !present(a.Data) {
		return nil, &RefusedError{Answer: a}
	}
	c := new(attest.Challenge)
	if err := json.Unmarshal(a.Data, c); err != nil {
		return nil, fmt.Errorf("read challenge: %w", err)
	}
	return c, c.Check()
}

// In reports whether the answer holds a token.
func (a *Answer) In() bool { return present(a.Auth) }

// Rule is the rule that refused; empty when the answer is no refusal in our
// words.
func (a *Answer) Rule() attest.Rule {
	if len(a.Errors) != 1 {
		return ""
	}
	rule, ours := strings.CutPrefix(a.Errors[0], attest.RefusalPrefix)
	if !ours || !attest.Rule(rule).Known() {
		return ""
	}
	return attest.Rule(rule)
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// RefusedError says that a server answered, but not with what was asked for.
type RefusedError struct{ Answer *Answer }

// Error gives the server's own words.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("HTTP %d %q", e.Answer.Status, e.Answer.Errors)
}

// Handler is a Server that is a function: path is "challenge" or "login".
type Handler func(ctx context.Context, path string, message []byte) (*Answer, error)

// Challenge implements Server.
func (h Handler) Challenge(ctx context.Context, message []byte) (*Answer, error) {
	return h(ctx, "challenge", message)
}

// Login implements Server.
func (h Handler) Login(ctx context.Context, message []byte) (*Answer, error) {
	return h(ctx, "login", message)
}
