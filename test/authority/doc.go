// SPDX-License-Identifier: Apache-2.0

// Package authority is a small CA for the listeners of servers that tests start.
//
// It never vouches for a host's or a TPM's key, and keeps nothing on disk.
package authority
