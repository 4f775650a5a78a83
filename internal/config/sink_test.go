// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sink = `
[[sink]]
role  = "bao-agent"
file  = "/run/omen-agent/bao-agent.token"
owner = "openbao:openbao"
`

func TestSink(t *testing.T) {
	c, err := load(t, spire+sink)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Sinks) != 1 || c.Sinks[0] != (Sink{"bao-agent", "/run/omen-agent/bao-agent.token", "openbao:openbao"}) {
		t.Errorf("%+v", c.Sinks)
	}
	if err := c.Sinks[0].Check(c); err != nil {
		t.Error(err)
	}
	bad := c.Sinks[0]
	bad.Role = "keylime"
	var e *Error
	if err := bad.Check(c); !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("%v", err)
	}
}

// Each row bends the table, or adds one, and expects the fault at its line.
func TestSinkRefused(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	first := strings.Count(spire, "\n") + 2 // the line of [[sink]]
	for name, row := range map[string]struct {
		old, new string
		line     int
		fault    string
	}{
		"role that signs": {`"bao-agent"`, `"keylime"`, first + 1, "sign this host's certificates"},
		"no role":         {`role  = "bao-agent"`, "", first, `role = ""`},
		"role is a path":  {`"bao-agent"`, `"../x"`, first + 1, "role = "},
		"relative":        {`"/run/omen-agent/bao-agent.token"`, `"token"`, first + 2, "file = "},
		"climbs":          {`/run/omen-agent/bao-agent.token`, `/run/omen-agent/../x`, first + 2, "file = "},
		"in a set's way":  {`bao-agent.token`, `web`, first + 2, "of certificates"},
		"in a set":        {`/run/omen-agent/`, `/run/omen-agent/web/`, first + 2, "only the agent itself"},
		"in the state":    {`/run/omen-agent/`, `/var/lib/omen-agent/`, first + 2, "only the agent itself"},
		"others' folder":  {`/run/omen-agent`, open, first + 2, "written by others"},
		"owner":           {`"openbao:openbao"`, `"a b"`, first + 3, "owner = "},
		"unknown key":     {`owner =`, `mode =`, first + 3, "unknown key"},
		"twice":           {`"openbao:openbao"`, `"openbao"` + "\n[[sink]]\nrole = \"other\"\nfile = \"/run/omen-agent/bao-agent.token\"", first + 6, "stands twice"},
		"second is bad":   {`"openbao:openbao"`, `"openbao"` + "\n[[sink]]\nrole = \"keylime\"\nfile = \"/run/x/y\"", first + 5, "sign this host's"},
		"too many":        {`owner =`, "owner = \"root\"\n" + strings.Repeat("[[sink]]\n", 8) + "owner =", first + 11, "9 sinks"},
	} {
		t.Run(name, func(t *testing.T) {
			bent := strings.Replace(sink, row.old, row.new, 1)
			if bent == sink {
				t.Fatal("nothing bent")
			}
			_, err := load(t, spire+bent)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Error(), row.fault) || e.Hint == "" || e.Line != row.line {
				t.Errorf("wanted line %d: %v", row.line, err)
			}
		})
	}
}

const workload = `
[[certificate]]
name        = "web"
profile     = "general"
usage       = "server"
common_name = "www.funlab.casa"
uri         = "spiffe://funlab.casa/web"
[certificate.files]
folder = "DIR/omen/web"
[workload_api]
certificate = "web"
users       = ["www-data", 998]
`

func TestWorkloadAPI(t *testing.T) {
	c, err := load(t, spire+workload)
	if err != nil {
		t.Fatal(err)
	}
	if w := c.WorkloadAPI; w.Socket != "/run/omen-agent/workload.sock" || !slices.Equal(w.Users, []User{"www-data", "998"}) || !w.On() {
		t.Errorf("%+v", w)
	}
	if uid, ok := c.WorkloadAPI.Users[1].Number(); !ok || uid != 998 {
		t.Errorf("%d, %t", uid, ok)
	}
	if c, err = load(t, spire); err != nil || c.WorkloadAPI.On() || c.WorkloadAPI.Socket != "" {
		t.Errorf("on by default: %+v, %v", c, err)
	}
}

func TestWorkloadAPIRefused(t *testing.T) {
	for name, row := range map[string]struct{ old, new, fault string }{
		"nobody":          {`["www-data", 998]`, `[]`, "no users"},
		"the last number": {`998`, `4294967295`, "users: "},
		"below zero":      {`998`, `-1`, "users: "},
		"not a name":      {`"www-data"`, `"a b"`, "users: "},
		"not a user":      {`998`, `true`, "a name or a number"},
		"no certificate":  {`certificate = "web"`, ``, "no certificate of that name"},
		"another":         {`certificate = "web"`, `certificate = "wiki"`, "no certificate of that name"},
		"Keylime's":       {`certificate = "web"`, `certificate = "verifier"`, "for Keylime alone"},
		"without uri":     {`uri         = "spiffe://funlab.casa/web"`, ``, "no uri"},
		"in the TPM":      {`usage       =`, "loads_tss2 = true\nkey = \"tpm\"\nusage =", "cannot be handed out"},
		"in the TPM too":  {`usage       =`, "loads_tss2 = true\nkey = \"auto\"\nusage =", "cannot be handed out"},
		"long socket":     {`users `, `socket = "/run/omen-agent/` + strings.Repeat("x", 90) + ".sock\"\nusers ", "socket = "},
		"relative socket": {`users `, "socket = \"workload.sock\"\nusers ", "socket = "},
		"file of a sink":  {`users `, "socket = \"/run/omen-agent/t.x\"\nusers = [1]\n[[sink]]\nrole = \"r\"\nfile = \"/run/omen-agent/t.x\"\nowner = \"x\"\n#", "file of a sink"},
	} {
		t.Run(name, func(t *testing.T) {
			bent := strings.Replace(workload, row.old, row.new, 1)
			if bent == workload {
				t.Fatal("nothing bent")
			}
			_, err := load(t, spire+bent)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Error(), row.fault) || e.Hint == "" || e.Line == 0 {
				t.Errorf("%v", err)
			}
		})
	}
}
