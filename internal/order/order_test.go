// SPDX-License-Identifier: Apache-2.0

package order

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hosts are configurations, each with what is there on its host. Their golden texts
// lie in testdata.
var hosts = map[string]struct {
	there  []string
	config string
}{
	"keylime": {
		[]string{"/dev/tpmrm0", "/etc/keylime"},
		`[[certificate]]
name = "verifier"
profile = "keylime-verifier"
[[certificate]]
name = "verifier-client"
profile = "keylime-verifier-client"
[[certificate]]
name = "agent"
profile = "keylime-agent"
[certificate.service]
unit = "my-keylime@1.service"
[[certificate]]
name = "tenant"
profile = "keylime-tenant"
`},
	"general": {
		[]string{"/etc/nginx", "/srv/ca files", "/var/lib/prometheus/node-exporter"},
		`[tpm]
device = "/dev/tpmrm1"
[metrics]
textfile = "/var/lib/prometheus/node-exporter/omen.prom"
[[certificate]]
name = "web"
profile = "general"
bundle_file = "/srv/ca files/100% \"our\" \\ own/ca.pem"
[certificate.files]
folder = "/etc/nginx/omen"
[certificate.service]
unit = "nginx.service"
[[certificate]]
name = "bao"
profile = "general"
[certificate.files]
folder = "/etc/openbao/omen"
[certificate.service]
signal = "HUP"
pid_file = "/run/openbao/openbao.pid"
program = "bao"
`},
	"software": {
		[]string{"/tmp/tpm", "/etc/keylime"},
		`[tpm]
device = "unix:/tmp/tpm/socket"
[[certificate]]
name = "registrar"
profile = "keylime-registrar"
[certificate.service]
start = ["/usr/bin/keylime_registrar"]
pid_file = "/run/registrar.pid"
`},
	"network": {
		[]string{"/etc/nginx"},
		`[tpm]
device = "tcp:127.0.0.1:2321"
[[certificate]]
name = "web"
profile = "general"
[certificate.files]
folder = "/etc/nginx/omen"
[certificate.service]
reload = ["/usr/sbin/nginx", "-s", "reload"]
`},
	"told": {
		[]string{"/dev/tpmrm0", "/etc/nginx"},
		`[[certificate]]
name = "web"
profile = "general"
[certificate.files]
folder = "/etc/nginx/omen"
[certificate.service]
reload = ["/usr/sbin/nginx", "-s", "reload"]
pid_file = "/run/nginx.pid"
program = "nginx"
`},
}

// run is the generator on a host where these paths are there, and no unit.
func run(t *testing.T, text string, there []string) (folder string, err error) {
	t.Helper()
	return runBelow(t, t.TempDir(), text, there)
}

// runBelow is the generator on a host whose units lie below root.
func runBelow(t *testing.T, root, text string, there []string) (folder string, err error) {
	t.Helper()
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "agent.toml")
	check(t, os.WriteFile(path, []byte(text), 0o644))
	folder = filepath.Join(dir, "normal")
	return folder, generate([]string{folder, dir, dir}, path, root, func(p string) bool { return slices.Contains(there, p) })
}

// written is what the generator wrote, file after file.
func written(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(folder + "/*/*")
	check(t, err)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		all.WriteString("==> " + strings.TrimPrefix(file, folder+"/") + " <==\n" + string(text))
	}
	return all.String()
}

func TestDropIns(t *testing.T) {
	for name, host := range hosts {
		t.Run(name, func(t *testing.T) {
			folder, err := run(t, host.config, host.there)
			check(t, err)
			got, golden := written(t, folder), filepath.Join("testdata", name+".golden")
			if *update {
				check(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			check(t, err)
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestUnsoundWords: each would say more in a unit than it should.
func TestUnsoundWords(t *testing.T) {
	for key, values := range map[string][]string{
		"unit": {
			`a.service\nExecStart=/bin/sh`, "a b.service", "%n.service", "a.socket", "a@.service", "@b.service", "a@b@c.service",
			`"a.service"`, "a/b.service", "omen-agent.service", "omen-agent-unseal.service", "é.service", strings.Repeat("a", 260) + ".service",
		},
		"folder": {`/etc/a\nReadWritePaths=/usr/x`, "etc/a/b", "/etc/a/../../b/c", "/web/omen", `/etc/\u0000/b`, `/etc/\u0085/b`},
		"device": {"/dev/tpm rw", "/dev/../etc/passwd", "/dev/tpm%n", "/dev/", "/etc/shadow", `/dev/a\nUser=x`, "unix:a/b", "/dev/a:/dev/b"},
	} {
		for _, value := range values {
			text := map[string]string{
				"unit":   "[[certificate]]\nprofile=\"general\"\n[certificate.service]\nunit = \"VALUE\"\n",
				"folder": "[[certificate]]\nprofile=\"general\"\n[certificate.files]\nfolder = \"VALUE\"\n",
				"device": "[tpm]\ndevice = \"VALUE\"\n",
			}[key]
			text = strings.Replace(text, "VALUE", strings.ReplaceAll(value, `"`, `\"`), 1) + "\n[[certificate]]\nprofile = \"general\"\n[certificate.service]\nunit = \"sound.service\"\n"
			folder, err := run(t, text, []string{"/dev/tpmrm0"})
			got := written(t, folder)
			if err == nil || !strings.Contains(got, "Before=sound.service\n") {
				t.Errorf("%s %q: %v\n%s", key, value, err, got)
			}
			if strings.Count(got, "\nBefore=") != 2 || strings.Contains(got, "ReadWritePaths") || strings.Contains(got, "DeviceAllow") {
				t.Errorf("%s %q got into\n%s", key, value, got)
			}
		}
	}
}

// TestNoConfiguration writes nothing and says nothing; one that cannot be read, or that
// others could have written, is said.
func TestNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "agent.toml")
	folder := filepath.Join(dir, "normal")
	if err := generate([]string{folder}, path, dir, isThere); err != nil {
		t.Error(err)
	}
	check(t, os.WriteFile(path, []byte("[[certificate]"), 0o644))
	if err := generate([]string{folder}, path, dir, isThere); err == nil || !strings.Contains(err.Error(), "agent.toml:1") {
		t.Errorf("broken: %v", err)
	}
	check(t, os.WriteFile(path, []byte(hosts["keylime"].config), 0o644))
	check(t, os.Chmod(path, 0o666))
	if err := generate([]string{folder}, path, dir, isThere); err == nil {
		t.Error("one that everybody can write was read")
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
	if err := generate(nil, path, dir, isThere); err == nil {
		t.Error("no folder to write to")
	}
}
