// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"encoding/base64"
	"fmt"
	"strings"

	"funlab.casa/omen/attest"
)

const (
	threatSize   = "field too large"
	threatSyntax = "field not base64, absent, of another type or of another message; unknown field"
	threatText   = "replacement or control characters and terminal escapes in anything shown or logged"
)

func sizeAttacks() []Attack {
	request := func(name string, bend func(*attest.ChallengeRequest)) Attack {
		return asked("size/"+name, threatSize, attest.RuleSize, func(_ *Scene, m *attest.ChallengeRequest) error {
			bend(m)
			return nil
		})
	}
	login := func(name string, bend func(*attest.LoginRequest)) Attack {
		return messaged("size/"+name, threatSize, attest.RuleSize, bend)
	}
	long := func(limit int) []byte { return make([]byte, limit+1) }
	many := func(n, size int) [][]byte {
		list := make([][]byte, n)
		for i := range list {
			list[i] = append(make([]byte, size-1), byte(i+1))
		}
		return list
	}
	return []Attack{
		request("EK certificate", func(m *attest.ChallengeRequest) { m.EKCertificate = long(attest.MaxCertificate) }),
		request("five intermediates", func(m *attest.ChallengeRequest) { m.Intermediates = many(attest.MaxIntermediates+1, 8) }),
		request("intermediate", func(m *attest.ChallengeRequest) { m.Intermediates = [][]byte{long(attest.MaxCertificate)} }),
		request("ek_public", func(m *attest.ChallengeRequest) {
			m.EKCertificate, m.Intermediates, m.EKPublic = nil, nil, long(attest.MaxEKPublic)
		}),
		request("AK", func(m *attest.ChallengeRequest) { m.AKPublic = long(attest.MaxAKPublic) }),
		request("role name", func(m *attest.ChallengeRequest) { m.Role = strings.Repeat("a", 129) }),
		request("whole request", func(m *attest.ChallengeRequest) { m.EKCertificate = long(attest.MaxChallengeRequest) }),
		login("challenge", func(m *attest.LoginRequest) { m.Challenge = long(attest.MaxChallenge) }),
		login("role name of the login", func(m *attest.LoginRequest) { m.Role = strings.Repeat("a", 129) }),
		login("audience", func(m *attest.LoginRequest) { m.Audience = strings.Repeat("a", attest.MaxAudience+1) }),
		login("quote", func(m *attest.LoginRequest) { m.Quote = long(attest.MaxQuote) }),
		login("signature", func(m *attest.LoginRequest) { m.Signature = long(attest.MaxSignature) }),
		login("17 keys", func(m *attest.LoginRequest) { m.Keys = many(attest.MaxKeys+1, 8) }),
		login("key", func(m *attest.LoginRequest) { m.Keys = [][]byte{long(attest.MaxKey)} }),
		login("certification", func(m *attest.LoginRequest) {
			m.Keys = [][]byte{{1}}
			m.Certify = []*attest.Certification{{Info: long(attest.MaxQuote), Signature: []byte{1}}}
		}),
		login("certification's signature", func(m *attest.LoginRequest) {
			m.Keys = [][]byte{{1}}
			m.Certify = []*attest.Certification{{Info: []byte{1}, Signature: long(attest.MaxSignature)}}
		}),
		login("25 PCR values", func(m *attest.LoginRequest) { m.PCRs = many(attest.MaxPCR+2, 32) }),
		login("PCR value", func(m *attest.LoginRequest) { m.PCRs = [][]byte{long(attest.MaxPCRValue)} }),
		login("event log", func(m *attest.LoginRequest) {
			m.PCRs, m.EventLog = [][]byte{{1}}, long(attest.MaxEventLog)
		}),
		login("whole login", func(m *attest.LoginRequest) {
			m.PCRs, m.EventLog = [][]byte{{1}}, long(attest.MaxLoginRequest)
		}),
		login("wanted name", func(m *attest.LoginRequest) { m.WantedName = strings.Repeat("a", attest.MaxWantedName+1) }),
	}
}

// unreadRequest is an attack by a request for a challenge that cannot be read.
func unreadRequest(name string, bend func(map[string]any)) Attack {
	return rawChallenge("syntax/request: "+name, threatSyntax, attest.RuleSyntax, bend)
}

// unreadLogin is an attack by a login that cannot be read.
func unreadLogin(name string, bend func(map[string]any)) Attack {
	return rawLogin("syntax/login: "+name, threatSyntax, attest.RuleSyntax, bend)
}

// set gives a field any value.
func set(field string, value any) func(map[string]any) {
	return func(m map[string]any) { m[field] = value }
}

// without leaves fields out.
func without(fields ...string) func(map[string]any) {
	return func(m map[string]any) {
		for _, field := range fields {
			delete(m, field)
		}
	}
}

// noVersions are what v is not.
var noVersions = []any{0, 2, -1, 1.5, 1e300, "1", nil, true, []int{1}}

func requestSyntaxAttacks() []Attack {
	list := []Attack{
		unreadRequest("empty", func(m map[string]any) { clear(m) }),
		unreadRequest("role in upper case beside it", func(m map[string]any) { m["Role"] = m["role"] }),
		unreadRequest("field of the login", set("quote", "AA==")),
		unreadRequest("role with a slash", set("role", "../config")),
		unreadRequest("empty role", set("role", "")),
		unreadRequest("no EK", without("ek_certificate", "intermediates")),
		unreadRequest("empty intermediate", set("intermediates", []string{""})),
		unreadRequest("intermediates is text", set("intermediates", "AA==")),
		unreadRequest("AK without padding", set("ak_public", "AAA")),
		unreadRequest("AK in base64 of URLs", set("ak_public", strings.Repeat("-_-_", 22))),
		unreadRequest("AK is a number", set("ak_public", 1)),
		unreadRequest("AK is a list of numbers", set("ak_public", []int{1, 1000})),
		unreadRequest("AK is an object", set("ak_public", map[string]any{"x": 1})),
	}
	for _, version := range noVersions {
		list = append(list, unreadRequest(fmt.Sprintf("version %#v", version), set("v", version)))
	}
	for _, field := range []string{"v", "role", "ak_public"} {
		list = append(list, unreadRequest(field+" absent", without(field)))
	}
	return list
}

func loginSyntaxAttacks() []Attack {
	b64 := base64.StdEncoding.EncodeToString
	list := []Attack{
		unreadLogin("empty", func(m map[string]any) { clear(m) }),
		unreadLogin("field of the request", set("ak_public", "AA==")),
		unreadLogin("a TPM ID of its own choice", set("tpm_id", "sha256-"+strings.Repeat("0", 64))),
		unreadLogin("a host of its own choice", set("host", "spire")),
		unreadLogin("event log without PCR values", set("event_log", b64([]byte{1}))),
		unreadLogin("hash of the event log of 31 bytes", set("event_log_hash", b64(make([]byte, 31)))),
		unreadLogin("hash of the event log of 33 bytes", set("event_log_hash", b64(make([]byte, 33)))),
		unreadLogin("keys in descending order", set("keys", []string{b64([]byte{2}), b64([]byte{1})})),
		unreadLogin("key twice", set("keys", []string{b64([]byte{1}), b64([]byte{1})})),
		unreadLogin("empty key", set("keys", []string{""})),
		unreadLogin("certification without key", set("certify", []any{map[string]any{"info": "AA==", "signature": "AA=="}})),
		unreadLogin("certification empty", func(m map[string]any) { m["keys"], m["certify"] = []string{b64([]byte{1})}, []any{map[string]any{}} }),
		unreadLogin("certification with a field more", func(m map[string]any) {
			m["keys"] = []string{b64([]byte{1})}
			m["certify"] = []any{map[string]any{"info": "AA==", "signature": "AA==", "name": "AA=="}}
		}),
		unreadLogin("empty PCR value", set("pcrs", []string{""})),
		unreadLogin("ticket of 31 bytes", set("ticket", b64(make([]byte, 31)))),
		unreadLogin("ticket of 33 bytes", set("ticket", b64(make([]byte, 33)))),
		unreadLogin("empty audience", set("audience", "")),
		unreadLogin("audience not ASCII", set("audience", "https://spıre.example:8200||auth/tpm")),
		unreadLogin("wanted name with a dot", set("wanted_name", "a.b")),
		unreadLogin("wanted name root", set("wanted_name", "root")),
		unreadLogin("wanted name in upper case", set("wanted_name", "Spire")),
		unreadLogin("wanted name with a slash", set("wanted_name", "../spire")),
		unreadLogin("wanted name is a list", set("wanted_name", []string{"spire"})),
	}
	for _, version := range noVersions {
		list = append(list, unreadLogin(fmt.Sprintf("version %#v", version), set("v", version)))
	}
	for _, field := range []string{"v", "role", "challenge", "audience", "quote", "signature", "event_log_hash"} {
		list = append(list, unreadLogin(field+" absent", without(field)), unreadLogin(field+" null", set(field, nil)))
	}
	return list
}

// nasty are texts that must get nowhere near a terminal or a log.
var nasty = []struct{ name, text string }{
	{"terminal escape", "\x1b[2J\x1b]0;owned\x07"},
	{"control character of 8 bits", "\u009b2J"},
	{"line feed", "a\nb"},
	{"NUL", "a\x00b"},
	{"replacement character", "a\ufffdb"},
	{"text turned around", "a\u202eb"},
	{"quotation", `a" rule="none`},
}

func textAttacks() []Attack {
	var list []Attack
	for _, n := range nasty {
		for _, field := range []string{"role", "ek_certificate", "ak_public", "ek_public", n.text} {
			list = append(list, rawChallenge("text/request: "+n.name+" in "+called(field, n.text), threatText, attest.RuleSyntax,
				func(m map[string]any) { m[field] = n.text }))
		}
		list = append(list, rawChallenge("text/request: "+n.name+" in intermediates", threatText, attest.RuleSyntax,
			func(m map[string]any) { m["intermediates"] = []string{n.text} }))
		for _, field := range []string{"role", "audience", "challenge", "quote", "signature", "event_log_hash", "event_log", "ticket", "wanted_name", n.text} {
			list = append(list, rawLogin("text/login: "+n.name+" in "+called(field, n.text), threatText, attest.RuleSyntax,
				func(m map[string]any) { m[field] = n.text }))
		}
		for _, field := range []string{"keys", "pcrs"} {
			list = append(list, rawLogin("text/login: "+n.name+" in "+field, threatText, attest.RuleSyntax,
				func(m map[string]any) { m[field] = []string{n.text} }))
		}
	}
	return list
}

// called keeps nasty text out of the names of attacks.
func called(field, text string) string {
	if field == text {
		return "a field's name"
	}
	return field
}
