// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"time"
)

// DefaultPath is where the agent looks for its configuration.
const DefaultPath = "/etc/omen-agent/agent.toml"

// Config is agent.toml, checked and with its defaults filled in.
type Config struct {
	OpenBao      OpenBao       `toml:"openbao"`
	TPM          TPM           `toml:"tpm"`
	Seal         Seal          `toml:"seal"`
	PKI          PKI           `toml:"pki"`
	Keylime      Keylime       `toml:"keylime"`
	Boot         Boot          `toml:"boot"`
	Metrics      Metrics       `toml:"metrics"`
	WorkloadAPI  WorkloadAPI   `toml:"workload_api"`
	Certificates []Certificate `toml:"certificate"`
	Sinks        []Sink        `toml:"sink"`
}

// OpenBao says where the server is and as what to log in.
type OpenBao struct {
	Addresses     []string `toml:"addresses"` // https://host:port, tried in this order
	CAFile        string   `toml:"ca_file"`   // PEM, the only trust for these addresses
	AuthPath      string   `toml:"auth_path"` // "auth/tpm"
	Role          string   `toml:"role"`
	Namespace     string   `toml:"namespace"`
	TLSServerName string   `toml:"tls_server_name"`
	WantedName    string   `toml:"wanted_name"` // a remark for whoever approves new hosts
}

// NoCertificate is the word for an endorsement key that nobody vouches for.
const NoCertificate = "none"

// TPM says which TPM and what of it to use.
type TPM struct {
	Device              string `toml:"device"`           // a device node, unix:PATH or tcp:HOST:PORT
	EK                  string `toml:"ek"`               // "auto", "rsa2048", "p256" or "p384"
	EKCertificate       string `toml:"ek_certificate"`   // file, DER or PEM; NoCertificate; "" is the TPM's own
	EKIntermediates     string `toml:"ek_intermediates"` // file, PEM
	EventLog            string `toml:"event_log"`
	OwnerAuthFile       string `toml:"owner_auth_file"`
	EndorsementAuthFile string `toml:"endorsement_auth_file"`
}

// Seal says in which state of the machine a sealed key comes back at boot.
type Seal struct {
	Policy string `toml:"policy"` // "pcr", or "none": any state
	Bank   string `toml:"pcr_bank"`
	PCRs   []int  `toml:"pcrs"`
}

// PKI says who signs and which root every chain must reach.
type PKI struct {
	Path   string `toml:"path"`   // mount, "pki_int"
	Anchor string `toml:"anchor"` // PEM file of the root, or of several while a CA is replaced
}

// Certificate is one certificate to keep.
type Certificate struct {
	Name         string       `toml:"name"`
	Profile      string       `toml:"profile"`
	ForUsage     string       `toml:"usage"` // of profile general: Server or Client
	CommonName   string       `toml:"common_name"`
	DNS          []string     `toml:"dns"`
	IP           []netip.Addr `toml:"ip"`
	URI          string       `toml:"uri"`        // a SPIFFE ID
	Key          string       `toml:"key"`        // "tpm", "sealed", "file" or "auto"
	LoadsTSS2    bool         `toml:"loads_tss2"` // what reads the key can use one in the TPM
	TTL          Duration     `toml:"ttl"`
	Path         string       `toml:"path"`   // instead of pki.path
	Role         string       `toml:"role"`   // instead of <host>.<usage>
	Anchor       string       `toml:"anchor"` // instead of pki.anchor
	Mode         string       `toml:"mode"`   // where Keylime's settings go: "drop-in" or "edit"
	Agents       []string     `toml:"agents"` // Keylime agent UUIDs that verify asks about
	AgentVersion string       `toml:"agent_version"`
	// Where the CAs of this certificate are to be found by others: as PEM, and as
	// the bundle of the trust domain of URI (SPIFFE Trust Domain and Bundle).
	BundleFile       string  `toml:"bundle_file"`
	SPIFFEBundleFile string  `toml:"spiffe_bundle_file"`
	Files            Files   `toml:"files"` // of profile general
	Service          Service `toml:"service"`
}

// Service says what the profile cannot look up by itself.
type Service struct {
	Unit    string   `toml:"unit"`
	Start   []string `toml:"start"`
	User    string   `toml:"user"`
	Log     string   `toml:"log"`
	PIDFile string   `toml:"pid_file"`
	Probe   string   `toml:"probe"` // host:port
	// Of profile general: how the program gets to its new certificate.
	Action  string   `toml:"action"`  // Restart, Reload or NoAct
	Reload  []string `toml:"reload"`  // command
	Signal  string   `toml:"signal"`  // "HUP", "USR1" or "USR2", to the process in PIDFile
	Program string   `toml:"program"` // base name of what PIDFile names
}

// Duration is a time.Duration written as Go writes it ("24h").
type Duration struct{ time.Duration }

// UnmarshalText reads a duration such as "24h" or "90m".
func (d *Duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// fill puts the defaults of an absent key in place.
func (c *Config) fill() {
	setDefault(&c.OpenBao.AuthPath, "auth/tpm")
	setDefault(&c.TPM.Device, "/dev/tpmrm0")
	setDefault(&c.TPM.EK, "auto")
	setDefault(&c.TPM.EventLog, "/sys/kernel/security/tpm0/binary_bios_measurements")
	c.Seal.fill()
	c.Boot.fill()
	c.WorkloadAPI.fill()
	setDefault(&c.PKI.Path, "pki_int")
	for i := range c.Certificates {
		cert := &c.Certificates[i]
		setDefault(&cert.Anchor, c.PKI.Anchor)
		if cert.Profile == General {
			cert.fillGeneral()
		} else {
			setDefault(&cert.Mode, "drop-in")
		}
		if cert.Usage() == Root {
			continue // nothing is issued
		}
		setDefault(&cert.Path, c.PKI.Path)
		setDefault(&cert.Key, "sealed")
		if cert.TTL.Duration == 0 {
			cert.TTL.Duration = 24 * time.Hour
		}
	}
}

func (s *Seal) fill() {
	setDefault(&s.Policy, "pcr")
	if s.Policy == "pcr" {
		setDefault(&s.Bank, "sha256")
		if s.PCRs == nil {
			s.PCRs = []int{7}
		}
	}
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
