// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A request is one call that OpenBao makes to itself when it starts for the
// first time (its self-initialisation), with a root token that nobody sees.
type request struct {
	name string // unique in its group
	path string
	data map[string]any // string, bool, int, []string, map, or fromResponse
}

// fromResponse is a value taken from the answer to an earlier request of the
// same group.
type fromResponse struct{ request, field string }

// A group is a list of requests, made in order.
type group struct {
	name     string
	requests []request
}

// render is the group in OpenBao's configuration language.
func (g group) render() string {
	var out strings.Builder
	fmt.Fprintf(&out, "initialize %q {\n", g.name)
	for _, r := range g.requests {
		fmt.Fprintf(&out, "  request %q {\n    operation = \"update\"\n    path = %q\n    data = %s\n  }\n",
			r.name, r.path, renderValue(g.name, r.data))
	}
	out.WriteString("}\n")
	return out.String()
}

func renderValue(group string, value any) string {
	switch v := value.(type) {
	case string:
		return strconv.Quote(v)
	case bool, int:
		return fmt.Sprint(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case fromResponse:
		return renderValue(group, map[string]any{
			"eval_type": "string", "eval_source": "response", "initialize_name": group,
			"response_name": v.request, "field_selector": []string{"data", v.field},
		})
	case map[string]any:
		var out strings.Builder
		out.WriteString("{\n")
		for _, key := range sortedKeys(v) {
			fmt.Fprintf(&out, "      %s = %s\n", key, renderValue(group, v[key]))
		}
		return out.String() + "    }"
	default:
		panic(fmt.Sprintf("no such value in a configuration: %T", value))
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
