// SPDX-License-Identifier: Apache-2.0

package attacker_test

import (
	"context"
	"fmt"
	"log"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// One attack against a server that is a function; an address would be an
// attacker.HTTP. This server refuses everything, and by the wrong rule.
func Example() {
	vendor, err := attacker.NewVendor(attacker.P256)
	if err != nil {
		log.Fatal(err)
	}
	server := func(context.Context, string, []byte) (*attacker.Answer, error) {
		return &attacker.Answer{Status: 403, Errors: []string{attest.RefusalPrefix + "role"}}, nil
	}
	setting := attacker.Setting{
		Server: attacker.Handler(server), Role: "keylime", Audience: "https://bao.example:8200||auth/tpm",
		Vendor: vendor, EK: attacker.P256,
		Enrol: func(context.Context, *attacker.TPM) error { return nil }, // here: write host/<name>
	}
	scene, err := setting.Open(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, attack := range attacker.Attacks() {
		if attack.Name == "ak-shape/unrestricted" {
			fmt.Println(attack.Run(context.Background(), scene))
		}
	}
	// Output: want rule ak-shape: HTTP 403 ["omen: refused: role"]
}
