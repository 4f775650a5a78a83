// SPDX-License-Identifier: Apache-2.0

// Package herd measures what happens when every machine of a fleet comes back
// from a power cut at the same moment: TPMs in software, each known to the server
// and with a reset counter one higher, attest against three nodes of a raft
// cluster, each with the agent's own client.
//
// Enrolment and the first login, which pins a host's key, lie before the clock
// starts. Machines that need as long to boot as others do not exist; a real fleet
// is kinder than this.
package herd
