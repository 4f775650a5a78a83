// SPDX-License-Identifier: Apache-2.0

package rival_test

import (
	"strings"
	"testing"
)

const secret = "s.SECRET"

// TestStaticTokens finds a token wherever a way by hand leaves it, and never repeats it.
func TestStaticTokens(t *testing.T) {
	const line = "BAO_TOKEN=" + secret + "\n"
	for _, file := range []string{
		"/etc/environment", "/etc/default/keylime", "/etc/sysconfig/bao", "/etc/profile.d/bao.sh", "/root/.bashrc", "/usr/local/bin/renew", "/etc/cron.d/renew", "/etc/cron.daily/renew",
		"/etc/crontab", "/etc/systemd/system/keylime_verifier.service.d/token.conf", "/var/spool/cron/crontabs/root",
	} {
		h := newHost(t)
		h.write(file, "# a comment\nexport X=1\n"+line, 0o600)
		if found, err := h.search().Tokens(t.Context()); err != nil || len(found) != 1 || found[0].File != file || found[0].Name != "BAO_TOKEN" {
			t.Errorf("%s: %v, %v", file, found, err)
		}
	}
	h := newHost(t)
	h.write("/etc/systemd/system/x.service", "[Service]\nEnvironmentFile=-/opt/x/env\nExecStart=/opt/x/run --now\n", 0o644)
	h.write("/opt/x/env", "VAULT_TOKEN='"+secret+"'\n", 0o600)
	h.write("/opt/x/run", "#!/bin/sh\ncurl -H 'X-Vault-Token: "+secret+"' x\n", 0o755)
	h.write("/root/.vault-token", secret, 0o600)
	found, err := h.search().Tokens(t.Context())
	if err != nil || len(found) != 3 {
		t.Fatalf("%v, %v", found, err)
	}
	for _, token := range found {
		if strings.Contains(token.File+token.Name, secret) {
			t.Errorf("the token is told: %v", token)
		}
	}
}

// TestNoStaticTokens: what is not a token, or is taken from elsewhere, is none.
func TestNoStaticTokens(t *testing.T) {
	h := newHost(t)
	h.write("/etc/default/a", "#BAO_TOKEN="+secret+"\nBAO_TOKEN=$(cat /run/token)\nBAO_TOKEN=\nBAO_TOKEN_FILE=/run/token\n", 0o600)
	h.write("/root/.vault-token", "\n", 0o600)
	if found, err := h.search().Tokens(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}
