// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestTokenDoesNotPrint looks for the token in everything that printing, logging
// and encoding make of it and of the session that holds it.
func TestTokenDoesNotPrint(t *testing.T) {
	token, err := newToken(secretToken)
	if err != nil {
		t.Fatal(err)
	}
	session := Session{Token: token, Host: "spire"}
	hidden := struct {
		token   Token
		session *Session
	}{token, &session}
	var out bytes.Buffer
	for _, value := range []any{token, &token, session, &session, hidden, &hidden, []Token{token}, map[string]Token{"t": token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", value)
	}
	for _, value := range []any{token, session, hidden} {
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(encoded)
	}
	text := strings.ToLower(out.String())
	for _, secret := range []string{secretToken, fmt.Sprintf("%x", secretToken), strings.Trim(fmt.Sprint([]byte(secretToken)), "[]")} {
		if strings.Contains(text, strings.ToLower(secret)) {
			t.Errorf("output contains %q", secret)
		}
	}
	if !strings.Contains(text, "[token]") {
		t.Error("the placeholder does not appear")
	}
}
