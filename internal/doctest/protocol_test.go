// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
)

// TestMessages: each field of the messages has its row in the section of its
// message, and every row is a field.
func TestMessages(t *testing.T) {
	text := page(t, "docs/protocol.md")
	for heading, messages := range map[string][]any{
		"## Message 1: challenge": {attest.ChallengeRequest{}, attest.Challenge{}},
		"## Message 2: login":     {attest.LoginRequest{}},
	} {
		body := section(t, text, heading)
		var fields []string
		for _, message := range messages {
			fields = append(fields, jsonFields(message)...)
		}
		for _, field := range fields {
			if rowOf(body, field) == nil {
				t.Errorf("%s: no row for %s", heading, field)
			}
		}
		for _, row := range rows(body) {
			if named := words(row[0]); len(row) == 3 && len(named) == 1 && !slices.Contains(fields, named[0]) {
				t.Errorf("%s: there is no field %s", heading, named[0])
			}
		}
	}
}

func jsonFields(message any) []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeOf(message)) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// TestBoundsOfLogin: the numbers of what came after the first messages are in the
// page.
func TestBoundsOfLogin(t *testing.T) {
	body := section(t, page(t, "docs/protocol.md"), "## Message 2: login")
	for words, same := range map[string]bool{
		"| 1 KiB and 600 bytes each |":                       attest.MaxQuote == 1<<10 && attest.MaxSignature == 600,
		"| 24, of 64 bytes each |":                           attest.MaxPCR+1 == 24 && attest.MaxPCRValue == 64,
		"| 1 MiB, or what the mount says |":                  attest.MaxEventLog == 1<<20,
		"| 32 bytes |":                                       attest.TicketSize == 32,
		"| 63 bytes |":                                       attest.MaxWantedName == 63,
		"at most 64 KiB and the log's base64":                attest.MaxLoginRequest == 64<<10+attest.MaxEventLog*4/3,
		`SHA-256("omen/1/certify/" ‖ kind) ‖ SHA-256(S) ‖ S`: true,
	} {
		if !same || !strings.Contains(body, words) {
			t.Errorf("%q: in the page %t, in the code %t", words, strings.Contains(body, words), same)
		}
	}
}
