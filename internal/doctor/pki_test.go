// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

var pkiBreaks = map[string]func(*testing.T){
	"pki-role": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("pki-role")
		h.allow("pki_int", "server", []string{"web.keylime.test"}, map[string]any{"key_type": "rsa", "key_bits": 2048, "allow_any_name": true})
		h.bad("pki-role", Problem, "requires keys of type")
		h.answers(map[string]row{
			"of no use to P-256": {map[string]any{"key_type": "ec", "key_bits": 384}, checkPKIRole, Problem, "a minimum of a 384-bit key"},
			"no CN is taken":     {map[string]any{"use_csr_common_name": false}, checkPKIRole, Problem, "it issues nothing: the common_name field is required"},
			"no issuer":          {map[string]any{"issuer_ref": "nobody"}, checkPKIRole, Problem, "it issues nothing: 1 error occurred: * could not fetch the CA"},
		})
		h.policy("pki_int/sign/"+h.name+".server", "pki_none/sign/"+h.name+".client")
		h.certificate("tenant", strings.Replace(h.certs["tenant"], "pki_clients", "pki_none", 1))
		h.bad("pki-role", Problem, "nothing is mounted at pki_none")
		h.server.delete(t, "pki_int/roles/"+h.name+".server")
		h.bad("pki-role", Problem, "unknown role")
		h.policy("pki_clients/sign/" + h.name + ".client")
		h.bad("pki-role", Problem, "denied")
	},
	"pki-names": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("pki-names")
		domains := []string{"web.keylime.test"}
		for words, bend := range map[string]map[string]any{
			"any name: omen-doctor.invalid":                     {"allow_any_name": true},
			"names below its own: omen-doctor.web.keylime.test": {"allow_subdomains": true},
			"names beside its own: omen-doctor.keylime.test":    {"allow_glob_domains": true, "allowed_domains": []string{"web.keylime.test", "*.keylime.test"}},
			"a foreign address: web.keylime.test":               {"allowed_ip_sans_cidr": []string{}},
			"a foreign SPIFFE ID: web.keylime.test":             {"allowed_uri_sans": []string{"spiffe://*"}},
			"its key is thrown away":                            {"allow_any_name": true},
		} {
			h.allow("pki_int", "server", domains, bend)
			h.bad("pki-names", Problem, words)
		}
		h.allow("pki_int", "server", domains)
		h.good("pki-names")
		// What is refused for another cause says nothing of names.
		h.answers(map[string]row{
			"its own name":          {map[string]any{"allowed_domains": []string{"other.test"}}, checkPKINames, Problem, "it refuses web.keylime.test, the certificate's own name"},
			"names of the CSR":      {map[string]any{"use_csr_sans": false}, checkPKINames, Warning, "asked for a foreign address it issued another"},
			"what no P-256 can ask": {map[string]any{"key_bits": 384}, checkPKINames, NotApplicable, "pki-role comes first"},
			"a lifetime of no time": {
				map[string]any{"allowed_ip_sans_cidr": []string{}, "not_before_bound": "forbid", "not_after": "2020-01-01T00:00:00Z"}, checkPKINames, Warning,
				"not known whether it issues a foreign address: it refuses for another cause",
			},
		})
	},
	"pki-other-host": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("pki-other-host")
		for _, wide := range []string{"pki_int/sign/*", "pki_int/sign/" + h.name + "*"} {
			h.policy(wide, "pki_clients/sign/"+h.name+".client")
			h.bad("pki-other-host", Problem, "the policy lets this host ask pki_int/sign/")
		}
	},
	"pki-client-auth": func(t *testing.T) {
		h := enrolledHost(t)
		h.good("pki-client-auth")
		delete(h.certs, "tenant")
		h.certificate("verifier", "profile = \"keylime-verifier\"\ncommon_name = \"verifier.keylime.test\"\nkey = \"file\"")
		h.bad("pki-client-auth", Warning, "this host has none from there")
		h.allow("pki_int", "client", []string{"tenant.keylime.test"})
		h.policy("pki_int/sign/" + h.name + ".*")
		h.bad("pki-client-auth", Problem, "administers Keylime")
	},
	"pki-anchor": func(t *testing.T) {
		h := bareHost(t)
		h.good("pki-anchor")
		h.place("root.pem", string(newCAUntil(t, time.Now().AddDate(0, 0, 7)).pem), 0o644)
		h.bad("pki-anchor", Warning, "until")
		h.place("root.pem", string(newCAUntil(t, time.Now().Add(-time.Hour)).pem), 0o644)
		h.bad("pki-anchor", Problem, "expired")
	},
}

// row is a bent PKI role, and what a check has to say of it.
type row struct {
	bend   map[string]any
	check  func(context.Context, *patient) []Result
	status Status
	words  string
}

// answers has one check look at one role after another, with one login.
func (h *enrolled) answers(rows map[string]row) {
	h.t.Helper()
	d := h.doctor()
	p := d.newPatient()
	defer p.close()
	for what, r := range rows {
		h.allow("pki_int", "server", []string{"web.keylime.test"}, r.bend)
		results := r.check(h.t.Context(), p)
		if !slices.ContainsFunc(results, func(got Result) bool { return got.Status == r.status && strings.Contains(got.Seen, r.words) }) {
			h.t.Errorf("%s: no %s with %q in %+v", what, r.status, r.words, results)
		}
	}
	h.allow("pki_int", "server", []string{"web.keylime.test"})
}

// TestStrangers: what is asked for is nobody's.
func TestStrangers(t *testing.T) {
	h := bareHost(t)
	d := h.doctor()
	p := d.newPatient()
	defer p.close()
	for what, request := range strangers(p.certificate("tenant")) {
		request.Name, request.Usage, request.TTL = "x", 1, probeTTL
		if err := request.Check(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		own := request.CommonName == "tenant.keylime.test"
		if own && len(request.IP) == 0 && request.URI == "" || !own && !strings.Contains(request.CommonName, "omen-doctor") {
			t.Errorf("%s: somebody's: %+v", what, request)
		}
	}
}
