// SPDX-License-Identifier: Apache-2.0

// Command standin stands in for Keylime's Rust agent, which Debian 12 has no
// package of. It does with its files what that agent does, and no more:
// it starts as root, reads /etc/keylime/agent.conf and agent.conf.d, drops to
// the user and group of run_as, and only then reads key, certificate and
// trusted_client_ca, once. It serves the leaf alone, demands a client
// certificate with clientAuth from everybody, and answers /version and
// /v2.x/agent/info. With enable_agent_mtls = false it serves plain HTTP.
//
// It opens no TPM, registers nowhere and answers no quote, and says of itself
// that it is a stand-in. --supported-version sets the API versions it claims.
package main
