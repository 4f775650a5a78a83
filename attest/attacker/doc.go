// SPDX-License-Identifier: Apache-2.0

// Package attacker is a host that lies: a TPM in software, the conversation of
// package attest with a hook at every place where a host can bend it, and a table
// of attacks that a server of the protocol must refuse, each by the name of its
// rule.
//
// A [TPM] certified by a [Vendor] is honest until told otherwise and cheap enough
// to be had by the ten thousand. [Attacks] needs a [Scene]: a [Server], which is
// any address ([HTTP]) or any function ([Handler]), and a way to enrol a TPM
// there. [TPM.Attest] is one honest login, for floods and herds.
//
// It proves nothing about a real TPM: it holds keys in memory, draws them with
// crypto/rand and knows none of a TPM's locks. It opens no device, reads no file
// and speaks to no server but the one it is given. It is no model of a client: it
// believes all that a server says. No program that is shipped imports it.
package attacker
