// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a sample, in bytes.
const (
	longText   = 80 // of a text that is shown whole
	shownText  = 40 // of what is shown of a longer one
	longInline = 84 // of a value on one line
)

// secrets are what a page does not show whole, by its key.
var secrets = []string{"accessor", "client_token", "ticket", "token"}

// render writes an answer, or what is below a key of one, as a page shows it.
func render(key string, value any, indent string) string {
	inline := oneLine(key, value)
	if len(inline)+len(indent) <= longInline {
		return inline
	}
	var items []string
	below := indent + "  "
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			items = append(items, fmt.Sprintf("%s%q: %s", below, key, render(key, v[key], below)))
		}
		return "{\n" + strings.Join(items, ",\n") + "\n" + indent + "}"
	case []any:
		for _, item := range v {
			items = append(items, below+render(key, item, below))
		}
		return "[\n" + strings.Join(items, ",\n") + "\n" + indent + "]"
	default:
		return inline
	}
}

func oneLine(key string, value any) string {
	var items []string
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			items = append(items, fmt.Sprintf("%q: %s", key, oneLine(key, v[key])))
		}
		return "{" + strings.Join(items, ", ") + "}"
	case []any:
		for _, item := range v {
			items = append(items, oneLine(key, item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case string:
		if slices.Contains(secrets, key) && v != "" {
			v = v[:min(len(v), 8)] + "…"
		}
		return quote(v)
	case nil:
		return "null"
	default:
		return fmt.Sprint(v)
	}
}

func quote(text string) string {
	if len(text) > longText && !strings.Contains(text, " ") || strings.HasPrefix(text, "-----BEGIN") {
		cut := shownText
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a text always encodes
	return strings.TrimSuffix(out.String(), "\n")
}
