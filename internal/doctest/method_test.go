// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/plugin"
)

// document is the auth method's description of itself.
func document(t *testing.T) *framework.OASDocument {
	t.Helper()
	config := logical.TestBackendConfig()
	config.System = &logical.StaticSystemView{PluginEnvironment: new(logical.PluginEnvironment)}
	backend, err := plugin.Factory(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Cleanup(t.Context())
	response, err := backend.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.HelpOperation, Storage: new(logical.InmemStorage),
		Data: map[string]any{"requestResponsePrefix": "tpm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, ok := response.Data["openapi"].(*framework.OASDocument)
	if !ok {
		t.Fatalf("no description in %v", response.Data)
	}
	return doc
}

var bullet = regexp.MustCompile("(?m)^\\* ((?:`[a-z_]+`(?:, )?)+)")

// TestAuthMethod: every path of the method and every field is in its page, and
// every parameter in the page is a field.
func TestAuthMethod(t *testing.T) {
	text := page(t, "docs/auth-method.md")
	doc := document(t)
	fields := map[string]bool{}
	for name, item := range doc.Paths {
		where := path.Join("/auth/tpm", strings.ReplaceAll(name, "{name}", ":name"))
		if !strings.Contains(text, "`"+where+"`") {
			t.Errorf("no path %s in the page", where)
		}
		for _, parameter := range item.Parameters {
			fields[parameter.Name] = true
		}
		if item.Get != nil {
			for _, parameter := range item.Get.Parameters {
				fields[parameter.Name] = true
			}
		}
	}
	for _, schema := range doc.Components.Schemas {
		for field := range schema.Properties {
			fields[field] = true
		}
	}
	for field := range fields {
		if field != "list" && !slices.Contains(words(outsideCode(text)), field) {
			t.Errorf("no field %s in the page", field)
		}
	}
	for _, match := range bullet.FindAllStringSubmatch(outsideCode(text), -1) {
		for _, field := range words(match[1]) {
			if !fields[field] {
				t.Errorf("the method has no field %s", field)
			}
		}
	}
}
