// SPDX-License-Identifier: Apache-2.0

// Package agent is the whole job of a host in one place: [Agent.Renew] opens the
// TPM, makes the keys, proves the host, has the keys signed, judges the replies,
// installs, reloads, probes, and goes back when the new set is not served.
// [Agent.Run] does that for ever.
//
// Nothing on disk changes before every reply has been judged. The package keeps
// no token, and what it writes to status.json it never reads to decide anything.
package agent
