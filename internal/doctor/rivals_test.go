// SPDX-License-Identifier: Apache-2.0

package doctor

import "testing"

var rivalBreaks = map[string]func(*testing.T){
	"rivals": func(t *testing.T) {
		h := bareHost(t)
		h.good("rivals")
		h.place("usr/local/bin/renew", "#!/bin/sh\nbao write pki_int/issue/keylime > /etc/keylime/certs/x\n", 0o755)
		h.bad("rivals", Warning, "switched off")
		h.place("etc/cron.d/renew", "@daily root cp /root/new/*.crt /etc/keylime/certs/\n", 0o644)
		h.bad("rivals", Problem, "/etc/cron.d/renew:1")
	},
	"static-token": func(t *testing.T) {
		h := bareHost(t)
		h.good("static-token")
		h.place("root/.vault-token", "s.SECRET", 0o600)
		h.bad("static-token", Warning, "bao login left")
		h.place("etc/default/keylime", "BAO_TOKEN=s.SECRET\n", 0o600)
		h.bad("static-token", Problem, "/etc/default/keylime: it holds a token (BAO_TOKEN)")
	},
	"spire-server": func(t *testing.T) {
		h := bareHost(t)
		h.place("etc/spire/server/server.conf", "server {\n    bind_port = \"8081\"\n    trust_domain = \"funlab.casa\"\n}\n", 0o600)
		h.good("spire-server")
		h.certs["tenant"] += "\nuri = \"spiffe://funlab.casa/tenant\""
		h.bad("spire-server", Problem, "owns funlab.casa")
		h.place("etc/spire/server/server.conf", `{"server": {"trust_domain": "funlab.casa"}}`, 0o600)
		h.bad("spire-server", Problem, "owns funlab.casa")
		h.place("etc/spire/server/server.conf", "# trust_domain = \"funlab.casa\"\n", 0o600)
		h.bad("spire-server", Warning, "not seen")
	},
}
