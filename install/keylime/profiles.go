// SPDX-License-Identifier: Apache-2.0

package keylime

import "crypto/x509"

// Paths that Keylime is pointed at, absolute on the host.
const (
	ConfigDir = "/etc/keylime"
	VendorDir = "/usr/etc/keylime"
	CertsName = "certs"   // the link in ConfigDir
	SetName   = "keylime" // of the certificates in CertsDir, where it is one of several
	CertsDir  = ConfigDir + "/" + CertsName

	// Files of the set: what servers are verified by, and what clients are. Keylime
	// takes whoever the second vouches for as a client for an administrator.
	BundleFile        = "ca.crt"
	ClientsBundleFile = "clients-ca.crt"

	// RootFile holds one root and nothing else, for what reads the first
	// certificate of a file only.
	RootFile = "root.crt"
)

// Names of the profiles.
const (
	Verifier       = "keylime-verifier"
	VerifierClient = "keylime-verifier-client"
	Registrar      = "keylime-registrar"
	Tenant         = "keylime-tenant"
	Agent          = "keylime-agent"
	PushAgent      = "keylime-push-agent"
)

// Setting is one line of a drop-in. In Value, %s stands for the certificate's
// name; it is written in the syntax of the component's file.
type Setting struct{ Key, Value string }

// Profile is what has to be known of a certificate's use.
type Profile struct {
	Name      string
	Component string           // names main file, drop-in directory and section
	Usage     x509.ExtKeyUsage // the one extended key usage; Keylime takes every clientAuth for an administrator
	Service   string           // the profile whose service reads this certificate; "" for a command that reads at each call
	Units     []string         // unit names, the first one loaded is taken
	Program   string           // name of the executable
	PortKey   string           // the setting that holds the TLS port
	Port      int              // its default
	TOML      bool             // the component's files are TOML, and a main file is not needed
	RunsAs    bool             // started as root, it becomes run_as before it reads the key
	RootOnly  bool             // it has no certificate and listens nowhere: it needs RootFile
	Settings  []Setting
}

// Profiles is the table of all profiles, in the order in which services restart:
// an agent can only start while a registrar listens.
func Profiles() []Profile {
	return []Profile{
		{
			Name: Registrar, Component: "registrar", Usage: x509.ExtKeyUsageServerAuth, Service: Registrar,
			Units:   []string{"keylime_registrar.service", "keylime-registrar.service"},
			Program: "keylime_registrar", PortKey: "tls_port", Port: 8891,
			Settings: []Setting{
				{"tls_dir", CertsDir},
				{"server_key", "%s.key"}, {"server_cert", "%s.crt"},
				{"trusted_client_ca", "['" + ClientsBundleFile + "']"},
			},
		},
		{
			Name: Verifier, Component: "verifier", Usage: x509.ExtKeyUsageServerAuth, Service: Verifier,
			Units:   []string{"keylime_verifier.service", "keylime-verifier.service"},
			Program: "keylime_verifier", PortKey: "port", Port: 8881,
			Settings: []Setting{
				{"enable_agent_mtls", "True"},
				{"tls_dir", CertsDir},
				{"server_key", "%s.key"}, {"server_cert", "%s.crt"},
				{"trusted_client_ca", "['" + ClientsBundleFile + "']"},
			},
		},
		{
			Name: VerifierClient, Component: "verifier", Usage: x509.ExtKeyUsageClientAuth, Service: Verifier,
			Settings: []Setting{
				{"client_key", "%s.key"}, {"client_cert", "%s.crt"},
				{"trusted_server_ca", "['" + BundleFile + "']"},
			},
		},
		{
			Name: Tenant, Component: "tenant", Usage: x509.ExtKeyUsageClientAuth,
			Settings: []Setting{
				{"enable_agent_mtls", "True"},
				{"tls_dir", CertsDir},
				{"client_key", "%s.key"}, {"client_cert", "%s.crt"},
				{"trusted_server_ca", "['" + BundleFile + "']"},
			},
		},
		{
			Name: Agent, Component: "agent", Usage: x509.ExtKeyUsageServerAuth, Service: Agent,
			Units:   []string{"keylime_agent.service", "keylime-agent.service"},
			Program: "keylime_agent", PortKey: "port", Port: 9002, TOML: true, RunsAs: true,
			Settings: []Setting{
				{"enable_agent_mtls", "true"},
				{"server_key", CertsDir + "/%s.key"}, {"server_cert", CertsDir + "/%s.crt"},
				{"trusted_client_ca", CertsDir + "/" + ClientsBundleFile},
			},
		},
		{
			Name: PushAgent, Component: "agent", Service: PushAgent,
			Units:   []string{"keylime_push_model_agent.service"},
			Program: "keylime_push_model_agent", TOML: true, RunsAs: true, RootOnly: true,
			Settings: []Setting{
				{"verifier_tls_ca_cert", CertsDir + "/" + RootFile},
				{"registrar_tls_enabled", "true"},
				{"registrar_tls_ca_cert", CertsDir + "/" + RootFile},
				{"tls_accept_invalid_certs", "false"}, {"tls_accept_invalid_hostnames", "false"},
			},
		},
	}
}

// Bundle is the file that this profile's settings name: a server verifies clients
// by it, a client servers. What is no component of Keylime has one file for both.
func (p Profile) Bundle() string {
	if p.RootOnly {
		return RootFile
	}
	if p.Usage == x509.ExtKeyUsageClientAuth || p.Component == "" {
		return BundleFile
	}
	return ClientsBundleFile
}

// OwnBundle is the file by which others verify this profile's certificate.
func (p Profile) OwnBundle() string {
	if p.Usage == x509.ExtKeyUsageClientAuth && p.Component != "" {
		return ClientsBundleFile
	}
	return BundleFile
}

// Find returns the profile of that name.
func Find(name string) (Profile, bool) {
	for _, profile := range Profiles() {
		if profile.Name == name {
			return profile, true
		}
	}
	return Profile{}, false
}
