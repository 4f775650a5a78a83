// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Group is a list of requests that the first node makes to itself, in order,
// when it starts for the first time.
type Group struct {
	Name     string // unique in the configuration
	Requests []Request
}

// A Request is one write with a root token that nobody sees.
type Request struct {
	Name string // unique in its group
	Path string
	Data map[string]any // string, bool, int, []string, or map[string]any of these
}

// administrator makes a user who can do everything, and has new nodes vote as
// soon as they are there.
func (c *Cluster) administrator() Group {
	policy := "path \"*\" {\n  capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\", \"sudo\"]\n}\n"
	return Group{"administrator", []Request{
		{"policy", "sys/policies/acl/administrator", map[string]any{"policy": policy}},
		{"voters", "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"}},
		{"enable", "sys/auth/userpass", map[string]any{"type": "userpass"}},
		{"user", "auth/userpass/users/omen", map[string]any{"password": c.password, "token_policies": []string{"administrator"}}},
	}}
}

// render is the group in OpenBao's configuration language.
func (g Group) render() string {
	var out strings.Builder
	fmt.Fprintf(&out, "initialize %q {\n", g.Name)
	for _, r := range g.Requests {
		fmt.Fprintf(&out, "  request %q {\n    operation = \"update\"\n    path = %q\n    data = %s\n  }\n",
			r.Name, r.Path, renderValue("      ", r.Data))
	}
	out.WriteString("}\n")
	return out.String()
}

func renderValue(indent string, value any) string {
	switch v := value.(type) {
	case string:
		return strconv.Quote(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case map[string]any:
		var out strings.Builder
		for _, key := range slices.Sorted(maps.Keys(v)) {
			fmt.Fprintf(&out, "%s%q = %s\n", indent, key, renderValue(indent+"  ", v[key]))
		}
		return "{\n" + out.String() + "}"
	default:
		return fmt.Sprint(v)
	}
}
