// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewKeyModes(t *testing.T) {
	for _, mode := range []Mode{ModeFile, ModeSealed} {
		if key, err := NewKey(t.Context(), mode, nil); err != nil || key.Mode() != mode || key.Resident() != nil {
			t.Errorf("%q: %v", mode, err)
		}
	}
	for _, mode := range []Mode{ModeResident, ModeAuto, "", "File", "none", "\x1b"} {
		if _, err := NewKey(t.Context(), mode, nil); err == nil {
			t.Errorf("%q: a key without a TPM", mode)
		}
	}
}

func TestCSRAsksForExactlyTheNames(t *testing.T) {
	w := newWorld(t)
	w.request.URI = "spiffe://example.org/keylime/verifier"
	text, err := w.key.CSR(w.request)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
		t.Fatalf("not one PEM request: %s", text)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(csr.RawSubjectPublicKeyInfo, w.key.SPKI()) {
		t.Error("request over another key than SPKI")
	}
	if got := csr.Subject.String(); got != "CN=verifier.keylime.example" {
		t.Errorf("subject %s", got)
	}
	if want := []string{"verifier.keylime.example", "localhost"}; !slices.Equal(csr.DNSNames, want) {
		t.Errorf("DNS names %q, want %q", csr.DNSNames, want)
	}
	if got := fmt.Sprint(csr.IPAddresses, csr.URIs, csr.EmailAddresses); got !=
		"[10.10.2.62 ::1] [spiffe://example.org/keylime/verifier] []" {
		t.Errorf("other names %s", got)
	}
	if len(csr.Extensions) != 1 {
		t.Errorf("%d extensions, want subjectAltName alone", len(csr.Extensions))
	}
}

func TestCSRChecksTheRequest(t *testing.T) {
	w := newWorld(t)
	w.request.CommonName = "*.keylime.example"
	if _, err := w.key.CSR(w.request); err == nil {
		t.Error("a request that Check refuses was signed")
	}
}

func TestSPKIIsACopy(t *testing.T) {
	w := newWorld(t)
	w.key.SPKI()[0] ^= 0xff
	if _, err := x509.ParsePKIXPublicKey(w.key.SPKI()); err != nil {
		t.Error(err)
	}
}

// TestKeysDoNotPrint looks for the private scalar and the PEM body in everything
// that printing, logging and encoding make of a key.
func TestKeysDoNotPrint(t *testing.T) {
	key, err := NewKey(t.Context(), ModeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := key.signer().(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, _ := pem.Decode(text.Reveal())
	hidden := struct {
		key     *Key
		byValue Key
		text    PrivateKey
	}{key, *key, text}
	shown := struct {
		Key  *Key
		Text PrivateKey
	}{key, text}
	var out bytes.Buffer
	for _, value := range []any{key, *key, text, &text, hidden, &hidden, shown, &shown, []any{text}, map[string]any{"k": key, "t": text}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(encoded)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", value)
	}
	fmt.Fprintln(&out, fmt.Errorf("wrapped: %v", text))
	for name, secret := range map[string]string{
		"PEM body":        strings.Split(string(text.Reveal()), "\n")[1],
		"PEM as numbers":  strings.Trim(fmt.Sprint(text.Reveal()[:24]), "[]"),
		"PEM as hex":      fmt.Sprintf("%x", text.Reveal()[28:60]),
		"scalar as hex":   fmt.Sprintf("%x", scalar),
		"scalar decimal":  key.signer().(*ecdsa.PrivateKey).D.String(), //nolint:staticcheck // how a careless print would show it
		"scalar as bytes": strings.Trim(fmt.Sprint(scalar), "[]"),
		"DER":             string(der.Bytes),
	} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(secret)) {
			t.Errorf("output contains the %s", name)
		}
	}
	if !strings.Contains(out.String(), "[private key]") || !strings.Contains(out.String(), "[key]") {
		t.Error("placeholders do not appear")
	}
	if (PrivateKey{}).Reveal() != nil {
		t.Error("the zero PrivateKey reveals something")
	}
}

func TestRenewAt(t *testing.T) {
	for _, row := range []struct{ lifetime, want time.Duration }{
		{24 * time.Hour, 16 * time.Hour}, {3 * time.Minute, 2 * time.Minute}, {0, 0}, {-time.Hour, 0},
	} {
		if got := RenewAt(now, now.Add(row.lifetime)).Sub(now); got != row.want {
			t.Errorf("lifetime %s: renew after %s, want %s", row.lifetime, got, row.want)
		}
	}
}

// A fleet that was issued for in one moment comes back spread evenly over a twelfth of
// the lifetime, each host at the same time whenever it is asked.
func TestEarlier(t *testing.T) {
	begin := time.Now()
	end := begin.Add(24 * time.Hour)
	quarters := [4]int{}
	for i := range 4000 {
		serial := fmt.Sprintf("7a:%02x:%02x", i>>8, i&0xff)
		early := Earlier(begin, end, serial)
		if early < 0 || early > 2*time.Hour || early != Earlier(begin, end, serial) {
			t.Fatalf("%s: %s", serial, early)
		}
		quarters[min(early/(30*time.Minute), 3)]++
	}
	for _, count := range quarters {
		if count < 850 || count > 1150 {
			t.Errorf("spread %v", quarters)
			break
		}
	}
	if got := Earlier(end, begin, "01"); got != 0 {
		t.Errorf("dates in the wrong order: %s", got)
	}
}
