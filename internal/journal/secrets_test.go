// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/issuer"
)

// TestSecretsAreNotLogged hands every type that holds a secret to the log, as
// itself and hidden in whatever a careless line may put around it.
func TestSecretsAreNotLogged(t *testing.T) {
	const secret = "s.this-is-not-to-be-seen-anywhere"
	token, err := bao.NewToken([]byte(secret))
	must(t, err)
	auth, err := host.NewAuthValue([]byte(secret))
	must(t, err)
	key, err := issuer.NewKey(t.Context(), issuer.ModeFile, nil)
	must(t, err)
	private, err := key.PEM()
	must(t, err)
	lines := strings.Split(string(private.Reveal()), "\n")

	got := new(told)
	log, otherwise := newLog(got)
	var all strings.Builder
	for name, value := range map[string]any{
		"token": token, "auth": auth, "key": key, "private key": private, "installed key": install.KeyPEM(private.Reveal()),
		"ticket": attest.Ticket(secret), "session": &bao.Session{Token: token, Host: "spire"}, "item": install.Item{Key: install.KeyPEM(private.Reveal())},
		"bytes": []byte(secret), "login": attest.LoginRequest{Ticket: attest.Ticket(secret)},
	} {
		shown := len(all.String())
		for _, around := range []any{value, []any{value}, &value, map[string]any{name: value}, struct{ Inside any }{value}, struct{ inside any }{value}} {
			log.With("with", around).Info("a line", "value", around, slog.Group("group", "value", around))
			fmt.Fprintln(&all, got.message, got.fields)
		}
		log.Error("failed", "error", fmt.Errorf("around %v: %w", token, errors.Join(errors.New("x"), fmt.Errorf("%v", key))))
		fmt.Fprintln(&all, got.message, got.fields)
		if len(all.String()) == shown {
			t.Fatal("nothing was logged")
		}
	}
	all.WriteString(otherwise.String())
	for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
		strings.Trim(fmt.Sprint([]byte(secret)), "[]"), lines[1], lines[2]} {
		if strings.Contains(all.String(), form) {
			t.Errorf("%q is in the log:\n%s", form, all.String())
		}
	}
	for _, mark := range []string{"[token]", "[private key]", "[ticket]", "[key]"} {
		if !strings.Contains(all.String(), mark) {
			t.Errorf("%s does not appear", mark)
		}
	}
}
