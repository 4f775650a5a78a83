// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
)

// Item is one configured certificate.
type Item struct {
	Name         string           // file name without suffix: "verifier" gives verifier.crt and verifier.key
	Profile      string           // a name from keylime.Profiles, or General
	Usage        x509.ExtKeyUsage // of profile General: ServerAuth or ClientAuth
	Files        Files            // of profile General
	Chain        []byte           // PEM, leaf first, then intermediates
	Key          KeyPEM           // PEM, PKCS#8 or SEC 1, or TSS2 of a key in the TPM
	Sealed       []byte           // what Key comes back from after a reboot; nil: Key itself is on the disk
	CA           []byte           // PEM, up to and with the self-signed roots; of a carried item the roots that it shall be known by
	Output       Output
	Mode         keylime.Mode // where the settings of its component go; "" for a drop-in
	Agents       []string
	AgentVersion string // of rust-keylime, where it cannot be learnt from the agent or its package
	Service      Service
}

// carried reports that the item is taken over from the generation before:
// neither key nor chain is given.
func (i Item) carried() bool { return len(i.Key) == 0 && len(i.Chain) == 0 }

// Service says what differs from what the profile looks up. All of it is
// optional where systemd knows the unit.
type Service struct {
	Unit    string
	Start   []string // command, Start[0] absolute, where there is no systemd
	User    string   // "user" or "user:group"
	Log     string   // output is appended here
	PIDFile string
	Probe   string // host:port
	// Of profile General.
	Action  string   // ActRestart, ActReload or ActNone
	Reload  []string // command that has it read its files again, Reload[0] absolute
	Signal  string   // "HUP", "USR1" or "USR2" for the same, to the process in PIDFile
	Program string   // base name of the executable, by which that process is known
}

// KeyPEM is a private key. It does not show itself in text of any kind.
type KeyPEM = keypair.KeyPEM
