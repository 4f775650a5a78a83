// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

var loginBreaks = map[string]func(*testing.T){
	"auth-mount": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("auth-mount")
		h.openbao["auth_path"] = `"auth/other"`
		h.bad("auth-mount", Problem, "denied")
	},
	"plugin-version": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("plugin-version")
		refusing(h.machine, attest.RuleSyntax)
		h.bad("plugin-version", Problem, "syntax")
	},
	"auth-role": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("auth-role")
		h.openbao["role"] = `"none"`
		h.bad("auth-role", Problem, "role")
	},
	"host-known": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("host-known")
		h.server.write(t, "auth/tpm/host/"+h.name+"/quarantine", nil)
		h.bad("host-known", Problem, "quarantined")
		h.server.write(t, "auth/tpm/host/"+h.name+"/enable", nil)
		stranger := serverHostOf(t, 1)
		stranger.bad("host-known", Problem, "no host has this TPM")
		stranger.openbao["role"] = `"waiting"`
		stranger.bad("host-known", Problem, "waits for an operator's approval")
		h.tpmIsEmpty()
	},
	"login": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("login")
		h.server.write(t, "auth/tpm/host/"+h.name, map[string]any{"pcr_digests": strings.Repeat("00", 32)})
		h.bad("login", Problem, "boot-policy")
		must(t, os.Remove(h.path("event-log")))
		h.bad("login", Problem, "read event log")
		h.tpmIsEmpty()
	},
}

// refusing is a server that refuses every challenge by a rule: what a plugin of another
// version does, of which there is none.
func refusing(h *machine, rule attest.Rule) {
	h.t.Helper()
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/health") {
			fmt.Fprintf(w, `{"initialized":true,"version":"2.7.2","server_time_utc":%d}`, time.Now().Unix())
			return
		}
		w.WriteHeader(rule.Status())
		fmt.Fprintf(w, `{"errors":[%q]}`, attest.RefusalPrefix+string(rule))
	}))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.StartTLS()
	h.t.Cleanup(node.Close)
	h.place("fake.pem", string(certPEM(node.Certificate().Raw)), 0o644)
	h.openbao["addresses"], h.openbao["ca_file"] = fmt.Sprintf("[%q]", node.URL), quoted(h.path("fake.pem"))
}

// TestResidentRole: a role that demands keys in the TPM is asked with one, which is
// thrown away.
func TestResidentRole(t *testing.T) {
	h := enrolledHost(t)
	h.server.write(t, "auth/tpm/role/resident", map[string]any{
		"pcrs": []string{"7"}, "way_in": "allow-list", "ek_classes": "virtual", "token_no_default_policy": true, "require_resident": true,
	})
	h.server.write(t, "auth/tpm/host/"+h.name, map[string]any{"roles": "keylime,resident"})
	h.openbao["role"] = `"resident"`
	h.bad("login", Problem, "refused: key")
	h.certificate("tenant", strings.Replace(h.certs["tenant"], `"file"`, `"tpm"`+"\nloads_tss2 = true", 1))
	h.good("login")
	h.tpmIsEmpty()
}
