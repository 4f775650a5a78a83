// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Sink is a file in which a token for another program is kept.
type Sink struct {
	Role  string `toml:"role"`  // of the auth method: one of its own, without sign paths
	File  string `toml:"file"`  // on a file system in memory
	Owner string `toml:"owner"` // "user" or "user:group" that reads it; root
}

// maxSinks bounds the tokens that are kept fresh: each costs a login every few minutes.
const maxSinks = 8

// loginRole is what the auth method takes for a role's name.
var loginRole = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?$`)

// runFolder is the agent's own folder in memory. Its folders are sets, whose names have
// no dot.
const runFolder = "/run/omen-agent"

func (c *Config) checkSinks() *fault {
	if len(c.Sinks) > maxSinks {
		return wrong("sink", maxSinks, "", "one host keeps at most 8", "%d sinks", len(c.Sinks))
	}
	files := map[string]bool{}
	for i, s := range c.Sinks {
		if files[s.File] {
			return wrong("sink", i, "file", "give each sink a file of its own", "file %q stands twice", s.File)
		}
		files[s.File] = true
		if f := s.check(i, c.OpenBao.Role); f != nil {
			return f
		}
	}
	return nil
}

// Check says what is wrong with a sink that the command line names: *Error, or nil.
func (s Sink) Check(c *Config) error {
	if f := s.check(0, c.OpenBao.Role); f != nil {
		return &Error{File: "login", Err: f.err, Hint: f.hint}
	}
	return nil
}

// check refuses the role by which certificates are signed: who can read the file could
// have this host's names signed for a key of his own.
func (s Sink) check(i int, signs string) *fault {
	at := func(key, hint, format string, args ...any) *fault {
		return wrong("sink", i, key, hint, format, args...)
	}
	switch {
	case !loginRole.MatchString(s.Role):
		return at("role", "the role of the auth method that the token is of", "role = %q", s.Role)
	case s.Role == signs:
		return at("role", "give the token a role of its own that signs nothing: bao write auth/tpm/role/<name> host_policy=false token_policies=…",
			"role = %q is the one in [openbao], whose tokens sign this host's certificates", s.Role)
	case s.Owner != "" && !owner.MatchString(s.Owner):
		return at("owner", `"user" or "user:group"`, "owner = %q", s.Owner)
	}
	if err := checkRunFile(s.File); err != nil {
		return at("file", `an absolute path on a tmpfs, in a folder of root's, as "/run/omen-agent/bao-agent.token"`, "file = %q: %w", s.File, err)
	}
	return nil
}

// checkRunFile looks at a path at which root makes something for others: nobody else
// can say what it means.
func checkRunFile(path string) error {
	folder := filepath.Dir(path)
	switch {
	case !isFolder(path):
		return fmt.Errorf("not the path of a file in a folder")
	case folder == runFolder && !strings.Contains(filepath.Base(path), "."):
		return fmt.Errorf("names without a dot are of certificates there")
	case strings.HasPrefix(folder, runFolder+"/"), strings.HasPrefix(path, "/var/lib/omen-agent/"), strings.HasPrefix(path, "/etc/keylime/certs/"):
		return fmt.Errorf("only the agent itself writes there")
	}
	return untrustedFolder(folder)
}
