// SPDX-License-Identifier: Apache-2.0

// Package attestation holds the tests that a machine goes on being attested while
// omen-agent keeps its certificates: a real agent of Keylime, with a software TPM
// of its own, attests to the real verifier, and both have only what omen-agent
// installed.
//
// In make test the agent is Keylime's last Python agent, run by agent.py. It makes
// a new attestation key whenever it starts, which a registrar of today refuses, so
// that it cannot be restarted; make test-keylime-agent, with a Rust agent given
// from outside, plays the same and adds renewals. The package itself is empty. It
// never looks into a program, and never waits for time to pass, only for a
// condition.
package attestation
