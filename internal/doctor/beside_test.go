// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// exporterFor runs something that looks like node_exporter in a list of processes.
func exporterFor(t *testing.T, name string, args ...string) (end func()) {
	t.Helper()
	command := exec.Command("/bin/sh")
	command.Args = append([]string{name, "-c", "echo ready; read word", "sh"}, args...)
	in, err := command.StdinPipe()
	must(t, err)
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	ended := false
	end = func() {
		if !ended {
			ended = true
			must(t, in.Close())
			must(t, ignoreExit(command.Wait()))
		}
	}
	t.Cleanup(end)
	return end
}

var besideBreaks = map[string]func(*testing.T){
	"metrics-textfile": func(t *testing.T) {
		h := bareHost(t)
		h.bad("metrics-textfile", NotApplicable, "names no textfile")
		folder := h.path("metrics")
		h.more = "[metrics]\ntextfile = \"/metrics/omen.prom\"\n"
		h.bad("metrics-textfile", Warning, "it is not there")
		must(t, os.Mkdir(h.path("elsewhere"), 0o755))
		must(t, os.Symlink(h.path("elsewhere"), folder))
		h.bad("metrics-textfile", Warning, "a link is on the way")
		must(t, os.Remove(folder))
		must(t, os.Mkdir(folder, 0o755))
		h.good("metrics-textfile")
		h.units = sound()
		h.bad("metrics-textfile", Warning, "it is not there, although omen-agent.service runs")
		h.place("metrics/omen.prom", "omen_build_info 1\n", 0o644)
		h.good("metrics-textfile")

		end := exporterFor(t, "/usr/bin/node_exporter", "--collector.textfile.directory=/other")
		h.bad("metrics-textfile", Warning, "reads /other")
		end()
		end = exporterFor(t, "/usr/bin/node_exporter")
		h.bad("metrics-textfile", Warning, "reads no text files")
		end()
		end = exporterFor(t, "prometheus-node-exporter", "--collector.textfile.directory", folder)
		h.good("metrics-textfile")
		end()

		old := time.Now().Add(-time.Hour)
		must(t, os.Chtimes(h.path("metrics/omen.prom"), old, old))
		h.bad("metrics-textfile", Warning, "written last")
	},
	"sinks": func(t *testing.T) {
		h := bareHost(t)
		h.bad("sinks", NotApplicable, "no [[sink]]")
		sink := func(file, owner string) {
			h.more = fmt.Sprintf("[[sink]]\nrole = \"token\"\nfile = %q\nowner = %q\n", file, owner)
		}
		const file = "/run/omen-agent/bao.token"
		record := func(text string) {
			h.place("var/lib/omen-agent/state/sinks.json", fmt.Sprintf(`{%q: {"role": "token", "file": %q, %s}}`, file, file, text), 0o600)
		}
		later, before := time.Now().Add(time.Hour).Format(time.RFC3339), time.Now().Add(-time.Hour).Format(time.RFC3339)
		sink(file, "keylime")
		h.bad("sinks", Warning, "none was written yet")
		record(`"until": "` + later + `"`)
		h.bad("sinks", Problem, "somebody took the file away")
		must(t, os.MkdirAll(h.path("run/omen-agent"), 0o711))
		h.place(file, "hvb.SECRET\n", 0o600)
		h.good("sinks")
		record(`"until": "` + before + `"`)
		h.bad("sinks", Problem, "and was not replaced")
		record(`"until": "` + later + `", "failure": {"step": "login", "message": "refused: role"}`)
		h.bad("sinks", Warning, "the last attempt failed: refused: role")
		record(`"until": "` + before + `", "failure": {"step": "login", "message": "refused: role"}`)
		h.bad("sinks", Problem, "there is no token that is good: refused: role")
		must(t, os.Chmod(h.path("run/omen-agent"), 0o700))
		h.bad("sinks", Warning, "may not pass the folder")
		must(t, os.Chmod(h.path("run/omen-agent"), 0o777))
		h.bad("sinks", Problem, "can be written by others")
		must(t, os.Chmod(h.path("run/omen-agent"), 0o711))
		sink(file, "nobody-here")
		h.bad("sinks", Problem, "its owner: unknown user")
		sink("/run/a/b/bao.token", "")
		h.bad("sinks", Problem, "no such file")

		disk := hostIn(t, "/var/tmp")
		disk.more = "[[sink]]\nrole = \"token\"\nfile = \"/run/bao.token\"\n"
		disk.bad("sinks", Problem, "not a file system in memory")
	},
	"workload-api": func(t *testing.T) {
		h := webOf(t, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "keylime.test", Path: "/web"}} })
		h.bad("workload-api", NotApplicable, "no [workload_api]")
		h.certs["web"] = "uri = \"spiffe://keylime.test/web\"\n" + h.certs["web"]
		use := func(users string) {
			h.more = "[workload_api]\ncertificate = \"web\"\nusers = [" + users + "]\nsocket = \"/run/w.sock\"\n"
		}
		use(`"keylime", 0`)
		h.bad("workload-api", Problem, "nobody serves it: connect: no such file")
		listener, err := net.Listen("unix", h.path("run/w.sock"))
		must(t, err)
		defer listener.Close()
		h.good("workload-api")
		use(`"keylime", "ghost"`)
		h.bad("workload-api", Warning, "ghost: it is no user of this host")
		must(t, os.Chmod(h.path("run"), 0o700))
		h.bad("workload-api", Warning, "may not pass the folder")
		must(t, os.Chmod(h.path("run"), 0o777))
		h.bad("workload-api", Problem, "can be written by others")
		must(t, os.Chmod(h.path("run"), 0o755))
		must(t, os.Remove(h.path("var/lib/omen-agent/web/current/web.crt")))
		h.bad("workload-api", Problem, "web: it cannot be handed out")
	},
}

// TestCollected reads command lines of node_exporter.
func TestCollected(t *testing.T) {
	for _, row := range []struct {
		words, want []string
	}{
		{[]string{"/usr/bin/node_exporter"}, nil},
		{[]string{"/usr/bin/prometheus-node-exporter", "--web.listen-address=:9100"}, []string{debianFolder}},
		{[]string{"/usr/bin/prometheus-node-exporter", "--no-collector.textfile"}, nil},
		{[]string{"node_exporter", "-collector.textfile.directory=/a/"}, []string{"/a"}},
		{[]string{"node_exporter", "--collector.textfile.directory", "/a", "--collector.textfile.directory=/b"}, []string{"/a", "/b"}},
		{[]string{"node_exporter", "--collector.textfile.directory"}, nil},
	} {
		if got := collected(row.words); !slices.Equal(got, row.want) {
			t.Errorf("%v: %v", row.words, got)
		}
	}
}

// FuzzCollected: a local user chooses what his processes seem to be called with; reading
// that ends, and names no folder that does not stand there.
func FuzzCollected(f *testing.F) {
	f.Add("node_exporter\x00--collector.textfile.directory=/a\x00-collector.textfile.directory")
	f.Add("prometheus-node-exporter\x00--no-collector.textfile")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, "\x00")
		for _, folder := range collected(words) {
			if folder == "" || folder != debianFolder && len(words) < 2 {
				t.Errorf("%q: %q", line, folder)
			}
		}
	})
}

// TestFiguresNobodyReads: node_exporter runs as a user who does not get to the file.
func TestFiguresNobodyReads(t *testing.T) {
	h := bareHost(t)
	h.place("metrics/omen.prom", "omen_build_info 1\n", 0o644)
	must(t, os.Chmod(filepath.Dir(h.path("metrics/omen.prom")), 0o700))
	d := h.doctor()
	p := d.newPatient()
	defer p.close()
	for _, row := range []struct {
		uid   int
		reads bool
	}{{0, true}, {4711, false}} {
		if err := p.readAs(exporter{uid: row.uid, gid: 4712}, "/metrics/omen.prom"); (err == nil) != row.reads {
			t.Errorf("user %d: %v", row.uid, err)
		}
	}
}
