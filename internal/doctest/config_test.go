// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/internal/config"
)

const configurationPage = "docs/configuration.md"

// tables are the tables of agent.toml by their heading, each with its keys.
func tables(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	collect(t, found, "", reflect.TypeFor[config.Config](), "")
	delete(found, "")
	return found
}

func collect(t *testing.T, found map[string][]string, heading string, table reflect.Type, path string) {
	t.Helper()
	for i := range table.NumField() {
		field := table.Field(i)
		key := field.Tag.Get("toml")
		if key == "" {
			t.Errorf("%s.%s has no toml tag", table, field.Name)
		}
		below := strings.TrimPrefix(path+"."+key, ".")
		switch inner := field.Type; {
		case inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct && strings.HasSuffix(inner.Elem().PkgPath(), "/config"):
			collect(t, found, "## [["+below+"]]", inner.Elem(), below)
		case inner.Kind() == reflect.Struct && inner.NumField() > 1:
			collect(t, found, "## ["+below+"]", inner, below)
		default:
			found[heading] = append(found[heading], key)
		}
	}
}

// TestConfigurationKeys: every key of the configuration has a row in the section
// of its table, and every row is a key.
func TestConfigurationKeys(t *testing.T) {
	text := page(t, configurationPage)
	all := tables(t)
	if len(all) != 11 {
		t.Fatalf("agent.toml has the tables %v", all)
	}
	for heading, keys := range all {
		body := section(t, text, heading)
		for _, key := range keys {
			if rowOf(body, key) == nil {
				t.Errorf("%s: no row for %s", heading, key)
			}
		}
		for _, row := range rows(body) {
			if first := words(row[0]); len(first) == 1 && row[0] == "`"+first[0]+"`" && !slices.Contains(keys, first[0]) {
				t.Errorf("%s: %s is no key", heading, first[0])
			}
		}
	}
}

// TestConfigurationDefaults: the defaults that the code fills in are in the
// page.
func TestConfigurationDefaults(t *testing.T) {
	c := load(t, examples(t)[0])
	text := page(t, configurationPage)
	for _, want := range []struct{ heading, key, value string }{
		{"## [openbao]", "auth_path", c.OpenBao.AuthPath},
		{"## [tpm]", "device", c.TPM.Device},
		{"## [tpm]", "ek", c.TPM.EK},
		{"## [tpm]", "event_log", c.TPM.EventLog},
		{"## [pki]", "path", c.PKI.Path},
		{"## [[certificate]]", "ttl", strconv.Itoa(int(c.Certificates[0].TTL.Hours())) + "h"},
	} {
		row := rowOf(section(t, text, want.heading), want.key)
		if row == nil || row[1] != "`"+want.value+"`" {
			t.Errorf("%s %s: the default is %q, the page says %v", want.heading, want.key, want.value, row)
		}
	}
	if !strings.Contains(text, config.DefaultPath) {
		t.Errorf("the page does not name %s", config.DefaultPath)
	}
}

var tomlBlock = regexp.MustCompile("(?ms)^```toml\n(.*?)^```")

// examples are the TOML blocks of the page; one that is only a part is completed
// with the head of the first.
func examples(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, match := range tomlBlock.FindAllStringSubmatch(page(t, configurationPage), -1) {
		block := match[1]
		if !strings.Contains(block, "[openbao]") {
			head, _, _ := strings.Cut(found[0], "[[certificate]]")
			block = head + block
		}
		found = append(found, block)
	}
	if len(found) < 2 {
		t.Fatal("no examples")
	}
	return found
}

var pemFile = regexp.MustCompile(`"/etc/omen-agent/[a-z-]+\.pem"`)

// load reads an example as the agent does, with files that are there.
func load(t *testing.T, example string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	there := filepath.Join(dir, "ca.pem")
	path := filepath.Join(dir, "agent.toml")
	for name, text := range map[string]string{there: "x", path: pemFile.ReplaceAllString(example, strconv.Quote(there))} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatalf("%v in\n%s", err, example)
	}
	return c
}

// TestConfigurationExamples: the agent accepts every example.
func TestConfigurationExamples(t *testing.T) {
	for _, example := range examples(t) {
		if c := load(t, example); len(c.Certificates) == 0 {
			t.Errorf("no certificate in\n%s", example)
		}
	}
}

// TestProfiles: the table of profiles is the code's.
func TestProfiles(t *testing.T) {
	body := section(t, page(t, configurationPage), "## Profiles")
	for _, profile := range keylime.Profiles() {
		row := rowOf(body, profile.Name)
		if row == nil {
			t.Errorf("no row for %s", profile.Name)
			continue
		}
		usage := config.Profiles[profile.Name]
		wanted := append(slices.Clone(profile.Units), profile.Component, profile.PortKey)
		if usage != config.Root {
			wanted = append(wanted, usage+"Auth", "<host>."+usage)
		}
		for _, want := range wanted {
			if !strings.Contains(strings.Join(row, "|"), want) {
				t.Errorf("%s: no %q in its row", profile.Name, want)
			}
		}
		if profile.Port != 0 && !strings.Contains(row[5], strconv.Itoa(profile.Port)) {
			t.Errorf("%s: port %d is not in its row", profile.Name, profile.Port)
		}
		var settings []string
		for _, setting := range profile.Settings {
			settings = append(settings, setting.Key)
		}
		if got := words(row[6]); !slices.Equal(got, settings) {
			t.Errorf("%s: settings %v, the code has %v", profile.Name, got, settings)
		}
	}
	if len(config.Profiles) != len(keylime.Profiles()) {
		t.Errorf("%d profiles in the configuration, %d in the installer", len(config.Profiles), len(keylime.Profiles()))
	}
}
