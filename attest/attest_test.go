// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// wantRule fails unless err is a refusal with this rule; "" wants no error.
func wantRule(t *testing.T, err error, want Rule) {
	t.Helper()
	var r *Refusal
	switch {
	case want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case want == "":
	case !errors.As(err, &r):
		t.Fatalf("got %v, want a refusal %s", err, want)
	case r.Rule != want:
		t.Fatalf("got rule %s (%s), want %s", r.Rule, r.Detail, want)
	}
}

func testAK(t *testing.T) *AK {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ak, err := AKFromPoint([32]byte(point[1:33]), [32]byte(point[33:]))
	if err != nil {
		t.Fatal(err)
	}
	return ak
}

func TestParseAK(t *testing.T) {
	good := testAK(t).Public()
	back, err := ParseAK(good)
	wantRule(t, err, "")
	if !bytes.Equal(back.Public(), good) {
		t.Fatal("public area changed on the way")
	}
	for name, bend := range map[string]func([]byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"trailing byte":      func(b []byte) []byte { return append(b, 0) },
		"cut":                func(b []byte) []byte { return b[:len(b)-1] },
		"RSA":                func(b []byte) []byte { b[1] = 1; return b },
		"unrestricted":       func(b []byte) []byte { b[5] &^= 1; return b },
		"decrypting":         func(b []byte) []byte { b[5] |= 2; return b },
		"exportable":         func(b []byte) []byte { b[7] &^= 2; return b },
		"imported":           func(b []byte) []byte { b[7] &^= 0x20; return b },
		"another policy":     func(b []byte) []byte { b[12] ^= 1; return b },
		"another scheme":     func(b []byte) []byte { b[len(b)-73] ^= 1; return b },
		"off the curve":      func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"short coordinate":   func(b []byte) []byte { b[len(b)-67] = 31; return b },
		"a client-sent Name": func(b []byte) []byte { return append([]byte{0, 0x0b}, b...) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseAK(bend(bytes.Clone(good)))
			wantRule(t, err, RuleAKShape)
		})
	}
}

// The Name must be the one that TPM 2.0 Part 1 defines over what go-tpm makes of
// the template, not merely one that we agree about with ourselves.
func TestAKNameMatchesGoTPM(t *testing.T) {
	ak := testAK(t)
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ak.Public())
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(name.Buffer, ak.Name()) {
		t.Fatalf("Name %x, go-tpm says %x", ak.Name(), name.Buffer)
	}
}

func TestEKPolicyB384IsTheOrOfItsBranches(t *testing.T) {
	or := sha512.New384()
	or.Write(make([]byte, sha512.Size384))
	or.Write(binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMCCPolicyOR)))
	or.Write(EKPolicyA384)
	or.Write(EKPolicyC384)
	if got := or.Sum(nil); !bytes.Equal(got, ekPolicyB384) {
		t.Fatalf("PolicyOR of A and C is %x", got)
	}
}

func TestEKPublicRefusesWeakKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = EKPublic(&weak.PublicKey)
	wantRule(t, err, RuleEKWeak)
	_, err = EKPublic(&rsa.PublicKey{N: good.N, E: 3})
	wantRule(t, err, RuleEKWeak)
	_, err = EKPublic(&rsa.PublicKey{})
	wantRule(t, err, RuleEKWeak)
	_, err = EKPublic(&p224.PublicKey)
	wantRule(t, err, RuleEKWeak)
	_, err = EKPublic(nil)
	wantRule(t, err, RuleEKWeak)
	id, err := NewTPMID(&good.PublicKey)
	wantRule(t, err, "")
	wantRule(t, id.Check(), "")
	wantRule(t, TPMID(strings.ToUpper(string(id))).Check(), RuleSyntax)
}

func goodLogin() LoginRequest {
	return LoginRequest{
		V: 1, Role: "keylime", Challenge: []byte{1}, Audience: "https://spire.funlab.casa:8200||auth/tpm",
		Quote: []byte{1}, Signature: []byte{1}, EventLogHash: make([]byte, 32),
		Keys: [][]byte{{1}, {2}},
	}
}

func TestDecodeLoginRequest(t *testing.T) {
	for _, row := range []struct {
		name string
		bend func(*LoginRequest)
		want Rule
	}{
		{"good", func(*LoginRequest) {}, ""},
		{"no keys", func(m *LoginRequest) { m.Keys = nil }, ""},
		{"version 2", func(m *LoginRequest) { m.V = 2 }, RuleSyntax},
		{"no role", func(m *LoginRequest) { m.Role = "" }, RuleSyntax},
		{"role with a path", func(m *LoginRequest) { m.Role = "../keylime" }, RuleSyntax},
		{"long role", func(m *LoginRequest) { m.Role = strings.Repeat("a", 129) }, RuleSize},
		{"no challenge", func(m *LoginRequest) { m.Challenge = nil }, RuleSyntax},
		{"long challenge", func(m *LoginRequest) { m.Challenge = make([]byte, MaxChallenge+1) }, RuleSize},
		{"no quote", func(m *LoginRequest) { m.Quote = nil }, RuleSyntax},
		{"long quote", func(m *LoginRequest) { m.Quote = make([]byte, MaxQuote+1) }, RuleSize},
		{"long signature", func(m *LoginRequest) { m.Signature = make([]byte, MaxSignature+1) }, RuleSize},
		{"long audience", func(m *LoginRequest) { m.Audience = strings.Repeat("a", MaxAudience+1) }, RuleSize},
		{"audience with escapes", func(m *LoginRequest) { m.Audience = "https://a\x1b[2J" }, RuleSyntax},
		{"short log hash", func(m *LoginRequest) { m.EventLogHash = make([]byte, 31) }, RuleSyntax},
		{"keys out of order", func(m *LoginRequest) { m.Keys = [][]byte{{2}, {1}} }, RuleSyntax},
		{"key twice", func(m *LoginRequest) { m.Keys = [][]byte{{1}, {1}} }, RuleSyntax},
		{"empty key", func(m *LoginRequest) { m.Keys = [][]byte{{}} }, RuleSyntax},
		{"17 keys", func(m *LoginRequest) { m.Keys = make([][]byte, 17) }, RuleSize},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := goodLogin()
			row.bend(&m)
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			_, err = DecodeLoginRequest(b)
			wantRule(t, err, row.want)
		})
	}
}

func TestDecodeRefusesWhatIsNotTheMessage(t *testing.T) {
	b, err := json.Marshal(goodLogin())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		body string
		want Rule
	}{
		"empty":         {"", RuleSyntax},
		"not JSON":      {"{", RuleSyntax},
		"unknown field": {strings.Replace(string(b), `{"v"`, `{"host":"spire","v"`, 1), RuleSyntax},
		"two messages":  {string(b) + string(b), RuleSyntax},
		"not base64":    {strings.Replace(string(b), `"quote":"AQ=="`, `"quote":"!!"`, 1), RuleSyntax},
		"too large":     {strings.Repeat(" ", MaxLoginRequest) + string(b), RuleSize},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeLoginRequest([]byte(row.body))
			wantRule(t, err, row.want)
		})
	}
}

func TestChallengeRequestCheck(t *testing.T) {
	good := ChallengeRequest{V: 1, Role: "keylime", EKCertificate: []byte{1}, AKPublic: []byte{1}}
	wantRule(t, good.Check(), "")
	for _, row := range []struct {
		bend func(*ChallengeRequest)
		want Rule
	}{
		{func(m *ChallengeRequest) { m.V = 0 }, RuleSyntax},
		{func(m *ChallengeRequest) { m.EKCertificate = nil }, RuleSyntax},
		{func(m *ChallengeRequest) { m.EKCertificate = make([]byte, MaxCertificate+1) }, RuleSize},
		{func(m *ChallengeRequest) { m.AKPublic = make([]byte, MaxAKPublic+1) }, RuleSize},
		{func(m *ChallengeRequest) { m.Intermediates = make([][]byte, 5) }, RuleSize},
		{func(m *ChallengeRequest) { m.Intermediates = [][]byte{nil} }, RuleSyntax},
	} {
		m := good
		row.bend(&m)
		wantRule(t, m.Check(), row.want)
	}
}

func TestChallengeHasExactlyThePartsOfItsKind(t *testing.T) {
	selection := Selection{Bank: "sha256", PCRs: []int{7}}
	credential := &Credential{Blob: []byte{1}, Secret: []byte{1}}
	nonce := make([]byte, SecretSize)
	for _, row := range []struct {
		c    Challenge
		want Rule
	}{
		{Challenge{Kind: KindActivate, Credential: credential}, ""},
		{Challenge{Kind: KindKnown, Nonce: nonce}, ""},
		{Challenge{Kind: KindActivate, Credential: credential, Nonce: nonce}, RuleSyntax},
		{Challenge{Kind: KindActivate, Nonce: nonce}, RuleSyntax},
		{Challenge{Kind: KindKnown, Credential: credential}, RuleSyntax},
		{Challenge{Kind: KindKnown, Nonce: nonce[1:]}, RuleSyntax},
		{Challenge{Kind: "other", Nonce: nonce}, RuleSyntax},
		{Challenge{Kind: KindActivate, Credential: &Credential{Blob: make([]byte, 257), Secret: []byte{1}}}, RuleSize},
	} {
		row.c.Challenge, row.c.PCRSelection = []byte{1}, selection
		wantRule(t, row.c.Check(), row.want)
	}
}

func TestSelection(t *testing.T) {
	for _, row := range []struct {
		s    Selection
		want Rule
	}{
		{Selection{"sha256", []int{0, 7, 23}}, ""},
		{Selection{"sha384", []int{0}}, ""},
		{Selection{"sha1", []int{0}}, RulePCRSelection},
		{Selection{"sha256", nil}, RulePCRSelection},
		{Selection{"sha256", []int{7, 7}}, RulePCRSelection},
		{Selection{"sha256", []int{7, 0}}, RulePCRSelection},
		{Selection{"sha256", []int{-1}}, RulePCRSelection},
		{Selection{"sha256", []int{24}}, RulePCRSelection},
	} {
		wantRule(t, row.s.Check(), row.want)
	}
	if got := (Selection{"sha256", []int{0, 7, 8, 23}}).Bitmap(); got != [3]byte{0x81, 0x01, 0x80} {
		t.Fatalf("bitmap %x", got)
	}
}

func TestAudience(t *testing.T) {
	for _, row := range []struct{ address, namespace, mount, want string }{
		{"https://spire.funlab.casa:8200", "", "auth/tpm", "https://spire.funlab.casa:8200||auth/tpm"},
		{"HTTPS://Spire.Funlab.Casa:8200/", "/", "/auth/tpm/", "https://spire.funlab.casa:8200||auth/tpm"},
		{"https://spire", "Team/A", "auth/TPM", "https://spire:443|Team/A/|auth/TPM"},
		{"https://[FE80::1]:8200", "", "auth/tpm", "https://[fe80::1]:8200||auth/tpm"},
		{"http://spire:8200", "", "auth/tpm", ""},
		{"https://user@spire:8200", "", "auth/tpm", ""},
		{"https://spire:8200/v1", "", "auth/tpm", ""},
		{"https://spire:8200?x", "", "auth/tpm", ""},
		{"https://:8200", "", "auth/tpm", ""},
		{"https://spire:8200", "a|b", "auth/tpm", ""},
		{"https://spire:8200", "", "pki", ""},
	} {
		got, err := Audience(row.address, row.namespace, row.mount)
		if got != row.want || (err != nil) != (row.want == "") {
			t.Errorf("%v: got %q, %v", row, got, err)
		}
	}
}

// Every part of the binding must move the hash, and no part may stand in for its
// neighbour.
func TestQuoteBindingCoversEveryPart(t *testing.T) {
	good := Binding{Kind: KindKnown, Secret: []byte{1}, Audience: "a", Keys: [][]byte{{1}, {2}}}
	seen := map[[32]byte]string{QuoteBinding(good): "good"}
	for name, bend := range map[string]func(*Binding){
		"kind":           func(b *Binding) { b.Kind = KindActivate },
		"secret":         func(b *Binding) { b.Secret = []byte{2} },
		"audience":       func(b *Binding) { b.Audience = "b" },
		"fewer keys":     func(b *Binding) { b.Keys = b.Keys[:1] },
		"keys joined":    func(b *Binding) { b.Keys = [][]byte{{1, 2}} },
		"no keys":        func(b *Binding) { b.Keys = nil },
		"event log hash": func(b *Binding) { b.EventLogHash[0] = 1 },
	} {
		b := good
		bend(&b)
		h := QuoteBinding(b)
		if other, dup := seen[h]; dup {
			t.Errorf("%s hashes like %s", name, other)
		}
		seen[h] = name
	}
}

func TestRules(t *testing.T) {
	if Rule("made-up").Known() || !RuleBootPolicy.Known() {
		t.Error("Known")
	}
	if RuleHostUnknown.StartOver() || !RuleState.StartOver() {
		t.Error("StartOver")
	}
	for rule, want := range map[Rule]int{RuleSize: 400, RuleSyntax: 400, RuleInternal: 500, RuleHostUnknown: 403} {
		if rule.Status() != want {
			t.Errorf("%s travels as %d", rule, rule.Status())
		}
	}
	r := Refuse(RuleRole, "role %q", "x")
	if r.Public() != "omen: refused: role" || r.Error() != `omen: refused: role: role "x"` {
		t.Errorf("%q, %q", r.Public(), r.Error())
	}
}
