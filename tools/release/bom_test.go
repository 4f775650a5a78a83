// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// testBOM: each list is valid by CycloneDX's own schema and names what
// `go version -m` finds in the program.
func (r release) testBOM(t *testing.T) {
	schema := bomSchema(t)
	for _, arch := range []string{"amd64", "arm64"} {
		name := plugin + "_linux_" + arch
		content := r.read(t, name+".cdx.json")
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
		check(t, err)
		if err := schema.Validate(instance); err != nil {
			t.Errorf("%s: %v", arch, err)
		}
		r.checkParts(t, name, content)
	}
}

func (r release) checkParts(t *testing.T, name string, content []byte) {
	t.Helper()
	var bom struct {
		SerialNumber string
		Metadata     struct {
			Timestamp string
			Component struct {
				Name, Version string
				Hashes        []struct{ Content string }
			}
		}
		Components   []struct{ Name, Version string }
		Dependencies []struct{ DependsOn []string }
	}
	check(t, json.Unmarshal(content, &bom))
	program := bom.Metadata.Component
	if bom.SerialNumber != "" || bom.Metadata.Timestamp != testDate.Format(time.RFC3339) {
		t.Errorf("%s: serial number %q, time %s", name, bom.SerialNumber, bom.Metadata.Timestamp)
	}
	if program.Name != plugin || program.Version != testVersion || program.Hashes[0].Content != r.checksums(t)[name] {
		t.Errorf("%s: component %+v", name, program)
	}
	var got []string
	for _, part := range bom.Components {
		got = append(got, part.Name+" "+part.Version)
	}
	if want := partsOf(t, filepath.Join(r.Out, name)); !slices.Equal(got, want) || len(want) < 20 {
		t.Errorf("%s: parts\n%v, want\n%v", name, got, want)
	}
	if len(bom.Dependencies) != 1 || len(bom.Dependencies[0].DependsOn) != len(got) {
		t.Errorf("%s: dependencies %v", name, bom.Dependencies)
	}
}

// partsOf asks the go command.
func partsOf(t *testing.T, file string) []string {
	t.Helper()
	out, err := exec.Command("go", "version", "-m", file).Output()
	check(t, err)
	lines := strings.Split(string(out), "\n")
	_, version, _ := strings.Cut(lines[0], ": go")
	parts := []string{"stdlib " + version}
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) == 4 && fields[0] == "dep" {
			parts = append(parts, fields[1]+" "+fields[2])
		}
	}
	return parts
}

// bomSchema is the schema that the CycloneDX library is tested with.
func bomSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	check(t, err)
	compiler := jsonschema.NewCompiler()
	for name, path := range map[string]string{
		"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json",
		"jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		file, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "schema", path))
		check(t, err)
		document, err := jsonschema.UnmarshalJSON(file)
		check(t, err)
		check(t, file.Close())
		check(t, compiler.AddResource("http://cyclonedx.org/schema/"+name, document))
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	check(t, err)
	return schema
}
