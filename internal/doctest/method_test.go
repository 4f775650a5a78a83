// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/plugin"
)

const methodPage = "docs/auth-method-api.md"

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

// endpoint is one thing that can be asked of the method.
type endpoint struct {
	name       string // POST /auth/tpm/role/:name
	parameters map[string]*framework.OASSchema
	answer     map[string]*framework.OASSchema
}

// endpoints are what the method's description says there is.
func endpoints(t *testing.T) map[string]*endpoint {
	t.Helper()
	doc := document(t)
	all := map[string]*endpoint{}
	for name, item := range doc.Paths {
		where := path.Join("/auth/tpm", placeholder.ReplaceAllString(name, ":$1"))
		for verb, operation := range map[string]*framework.OASOperation{"GET": item.Get, "POST": item.Post, "DELETE": item.Delete} {
			if operation == nil {
				continue
			}
			if slices.ContainsFunc(operation.Parameters, func(p framework.OASParameter) bool { return p.Name == "list" }) {
				verb = "LIST"
			}
			e := &endpoint{name: verb + " " + where, parameters: map[string]*framework.OASSchema{}, answer: answerOf(doc, operation)}
			for _, p := range item.Parameters {
				e.parameters[p.Name] = p.Schema
			}
			if operation.RequestBody != nil {
				maps.Copy(e.parameters, properties(doc, operation.RequestBody.Content))
			}
			all[e.name] = e
		}
	}
	return all
}

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

func answerOf(doc *framework.OASDocument, operation *framework.OASOperation) map[string]*framework.OASSchema {
	fields := map[string]*framework.OASSchema{}
	for _, response := range operation.Responses {
		maps.Copy(fields, properties(doc, response.Content))
	}
	return fields
}

func properties(doc *framework.OASDocument, content framework.OASContent) map[string]*framework.OASSchema {
	fields := map[string]*framework.OASSchema{}
	for _, media := range content {
		schema := media.Schema
		if name, ok := strings.CutPrefix(schema.Ref, "#/components/schemas/"); ok {
			schema = doc.Components.Schemas[name]
		}
		maps.Copy(fields, schema.Properties)
	}
	return fields
}

// sections are the sections of the page that are about endpoints, by these.
func sections(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	text := page(t, methodPage)
	for _, title := range regexp.MustCompile(`(?m)^## .*$`).FindAllString(outsideCode(text), -1) {
		body := section(t, text, title)
		for _, row := range rows(body) {
			verb, where := words(row[0]), words(row[len(row)-1])
			if len(verb) == 0 || len(where) == 0 {
				continue
			}
			name := verb[0] + " " + act.ReplaceAllString(where[0], ":name/:act")
			if other, ok := all[name]; ok && other != body {
				t.Errorf("%s is in the page twice", name)
			}
			all[name] = body
		}
	}
	return all
}

// act is the last word of a path that has several.
var act = regexp.MustCompile(`:name/(enable|disable|quarantine|accept-reset)$`)

// TestEndpoints: the method's endpoints are in its page, and no other is; each
// with its parameters and with what it answers.
func TestEndpoints(t *testing.T) {
	there, written := endpoints(t), sections(t)
	for name := range written {
		if there[name] == nil {
			t.Errorf("the method has no %s", name)
		}
	}
	for name, e := range there {
		body, ok := written[name]
		if !ok {
			t.Errorf("no %s in the page", name)
			continue
		}
		e.checkParameters(t, body)
		for field := range e.answer {
			if e.parameters[field] == nil && !strings.Contains(body, `"`+field+`"`) && !slices.Contains(words(outsideCode(body)), field) {
				t.Errorf("%s: no %s in the answer", name, field)
			}
		}
	}
}

var bullet = regexp.MustCompile("(?m)^\\* `([a-z0-9_]+)` `\\((\\w+): (.+?)\\)` – \\S")

func (e *endpoint) checkParameters(t *testing.T, body string) {
	t.Helper()
	text, _, _ := strings.Cut(body, "\n### Sample")
	described := map[string]bool{}
	for _, m := range bullet.FindAllStringSubmatch(text, -1) {
		name, kind, byDefault := m[1], m[2], m[3]
		described[name] = true
		if schema := e.parameters[name]; schema == nil {
			// What a list is asked for is not in the description.
			if !strings.HasPrefix(e.name, "LIST ") || name != "after" && name != "limit" {
				t.Errorf("%s: there is no parameter %s", e.name, name)
			}
		} else if kind != kindOf(schema) || !sameDefault(name, byDefault, schema) {
			t.Errorf("%s: %s is (%s: %v), in the page (%s: %s)", e.name, name, kindOf(schema), schema.Default, kind, byDefault)
		}
	}
	for name := range e.parameters {
		if !described[name] {
			t.Errorf("%s: no parameter %s in the page", e.name, name)
		}
	}
}

func kindOf(schema *framework.OASSchema) string {
	kinds := map[string]string{"boolean": "bool", "integer": "int", "array": "list", "object": "map"}
	switch kind, ok := kinds[schema.Type]; {
	case schema.Format == "seconds":
		return "duration"
	case ok:
		return kind
	default:
		return schema.Type
	}
}

// sameDefault holds the default in the page against the described one. Of the
// token's fields OpenBao describes its own defaults.
func sameDefault(name, written string, schema *framework.OASSchema) bool {
	if schema.Default == nil || strings.HasPrefix(name, "token_") {
		return slices.Contains([]string{"<required>", `""`, "[]", "{}", "false", "0", "2m", `"batch"`}, written)
	}
	text := fmt.Sprint(schema.Default)
	if list, ok := schema.Default.([]string); ok {
		text = strings.Join(list, " ")
	}
	written = strings.NewReplacer(`"`, "", ",", "", "[", "", "]", "", "1h", "3600").Replace(written)
	return written == strings.Trim(text, "[]")
}
