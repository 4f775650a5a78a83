// SPDX-License-Identifier: Apache-2.0

package provertest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

// Vector is one recorded conversation: what the server knew, what the host said,
// and what must come of it.
type Vector struct {
	About     string                  `json:"about"`
	Now       time.Time               `json:"now"`
	Roots     string                  `json:"roots"` // PEM
	Audiences []string                `json:"audiences"`
	Request   attest.ChallengeRequest `json:"request"`
	Kind      attest.Kind             `json:"kind"`
	S         []byte                  `json:"s"` // the challenge's secret
	Selection attest.Selection        `json:"pcr_selection"`
	Login     attest.LoginRequest     `json:"login"`
	Expect    Outcome                 `json:"expect"`
}

// Outcome is a rule that refuses, or the facts of a login that is accepted.
type Outcome struct {
	Rule         attest.Rule  `json:"rule,omitempty"`
	TPMID        attest.TPMID `json:"tpm_id,omitempty"`
	PCRDigest    string       `json:"pcr_digest,omitempty"` // hex
	ResetCount   uint32       `json:"reset_count,omitempty"`
	RestartCount uint32       `json:"restart_count,omitempty"`
}

// Clone is a copy that shares nothing.
func (v *Vector) Clone(t testing.TB) *Vector {
	t.Helper()
	b, err := json.Marshal(v)
	check(t, err)
	c := new(Vector)
	check(t, json.Unmarshal(b, c))
	return c
}

// Vectors reads all conversations in a directory, by file name.
func Vectors(t testing.TB, dir string) map[string]*Vector {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	check(t, err)
	if len(paths) == 0 {
		t.Fatalf("no vectors in %s", dir)
	}
	all := map[string]*Vector{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		check(t, err)
		v := new(Vector)
		check(t, json.Unmarshal(b, v))
		all[filepath.Base(path)] = v
	}
	return all
}

// Write records a conversation.
func (v *Vector) Write(t testing.TB, path string) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	check(t, err)
	check(t, os.WriteFile(path, append(b, '\n'), 0o600))
}
