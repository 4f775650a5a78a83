// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"testing"
)

var keylimeBreaks = map[string]func(*testing.T){
	"keylime-settings": func(t *testing.T) {
		h := bareHost(t)
		h.good("keylime-settings")
		h.place("etc/keylime/tenant.conf.d/99-site.conf", "[tenant]\nclient_cert = /root/mine.crt\n", 0o644)
		h.bad("keylime-settings", Problem, "client_cert")
		h.place("etc/keylime/tenant.conf.d/99-site.conf", "[tenant]\n", 0o644)
		h.place("etc/keylime/tenant.conf.d/site.conf.bak", "[tenant]\n", 0o644)
		h.bad("keylime-settings", Warning, "site.conf.bak")
		must(t, os.Remove(h.path("etc/keylime/tenant.conf")))
		h.bad("keylime-settings", Problem, "main configuration file is missing")
	},
	"keylime-agent-version": func(t *testing.T) {
		h := bareHost(t)
		program := h.program("keylime_agent")
		agent := func(version string) string {
			return fmt.Sprintf("profile = \"keylime-agent\"\ncommon_name = \"agent.keylime.test\"\nkey = \"file\"\nagent_version = %q\n[certificate.service]\nstart = [%q]\npid_file = \"/run/agent.pid\"\nprobe = \"127.0.0.1:1\"", version, program)
		}
		h.certs = map[string]string{"agent": agent("0.2.9")}
		h.good("keylime-agent-version")
		h.certificate("agent", agent("0.2.8"))
		h.bad("keylime-agent-version", Problem, "0.2.8")
	},
	"keylime-tmpfiles": func(t *testing.T) {
		h := bareHost(t)
		stock, err := os.ReadFile("../../test/systemd/testdata/keylime-tmpfiles.conf")
		must(t, err)
		h.place("usr/lib/tmpfiles.d/keylime.conf", string(stock), 0o644)
		h.good("keylime-tmpfiles") // a link in /etc/keylime is not touched
		must(t, os.MkdirAll(h.path("etc/keylime/certs"), 0o755))
		h.bad("keylime-tmpfiles", Problem, "/etc/keylime/certs: /usr/lib/tmpfiles.d/keylime.conf sets mode 0400")
		h.place("etc/tmpfiles.d/keylime.conf", "Z /etc/keylime 0400 keylime keylime -\nz /etc/keylime/certs 0500 keylime keylime -\n", 0o644)
		h.good("keylime-tmpfiles")
		h.place("etc/tmpfiles.d/site.conf", "Z /var/lib/omen-agent 0600 root root -\n", 0o644)
		h.bad("keylime-tmpfiles", Problem, "/var/lib/omen-agent")
	},
}

// FuzzTmpfiles: whatever stands in tmpfiles.d, reading it ends, and finds no folder that
// no line names.
func FuzzTmpfiles(f *testing.F) {
	f.Add([]byte("Z /etc/keylime 0400 keylime keylime -\nz /etc/keylime 0500\n"))
	f.Add([]byte("Z\nZ x\n\nz /a ~:07\nZ! /x/../y :0600"))
	f.Fuzz(func(t *testing.T, text []byte) {
		found := tmpfiles{mended: map[string]bool{}}
		found.read("x", text)
		for _, line := range found.closing {
			if line.folder == "" || line.mode == "" || hasPass(line.mode) {
				t.Errorf("%+v", line)
			}
		}
	})
}
