// SPDX-License-Identifier: Apache-2.0

// Package config reads agent.toml, the one file that tells a host's agent what
// to do, and refuses it at the first thing that is not right, with file, line
// and remedy.
//
// It holds no secret (a secret in a file that is named here is read by whoever
// uses it), reads no environment variable, and accepts no file that somebody
// else than its owner, root, could have written. It looks at files; it never
// changes one and makes no network call.
package config
