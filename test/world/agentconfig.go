// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"strings"
)

// AgentConfig is omen-agent's configuration on every host.
const AgentConfig = "/etc/omen-agent/agent.toml"

// A Certificate is one [[certificate]] table of agent.toml.
type Certificate struct {
	Name, Profile, CommonName string
	Key                       string // "" is the default, sealed
	Path, Anchor              string // "" is that of [pki]
	DNS, IP, Agents           []string
	AgentVersion              string
	Service                   *Service
}

// A Service is the [certificate.service] table of a certificate.
type Service struct {
	Start              []string
	User, Log, PIDFile string
	Probe              string
}

// SpireCertificates are the four certificates of the host spire. Its services
// are started by omen-agent: the world has no systemd.
func SpireCertificates() []Certificate {
	return []Certificate{
		{
			Name: "verifier", Profile: "keylime-verifier", CommonName: "verifier.keylime." + Domain,
			DNS: []string{"localhost"}, IP: []string{SpireIP, "127.0.0.1"},
			Service: pythonService("verifier", SpireIP+":8881"),
		},
		clientCertificate("verifier-client", "verifier"),
		{
			Name: "registrar", Profile: "keylime-registrar", CommonName: "registrar.keylime." + Domain,
			DNS: []string{"localhost"}, IP: []string{SpireIP, "127.0.0.1"},
			Service: pythonService("registrar", SpireIP+":8891"),
		},
		clientCertificate("tenant", "tenant"),
	}
}

// clientCertificate comes from the CA of Keylime's clients.
func clientCertificate(name, host string) Certificate {
	return Certificate{
		Name: name, Profile: "keylime-" + name, CommonName: host + ".keylime." + Domain,
		Path: ClientsPath, Anchor: ClientsAnchorFile,
	}
}

func pythonService(name, probe string) *Service {
	return &Service{
		Start: []string{"/usr/bin/keylime_" + name}, User: "keylime",
		Log: "/var/log/keylime/" + name + ".log", PIDFile: "/run/omen-agent/" + name + ".pid", Probe: probe,
	}
}

// AuthCertificates is the one certificate of the host auth.
func AuthCertificates() []Certificate {
	return []Certificate{AgentCertificate(AuthIP)}
}

// AgentCertificate is the certificate of the Keylime agent on the host with
// that address. The program there is the stand-in, whose version is declared;
// it starts as root and drops to its run_as user itself.
func AgentCertificate(address string) Certificate {
	return Certificate{
		Name: "agent", Profile: "keylime-agent", CommonName: "agent.keylime." + Domain,
		DNS: []string{"localhost"}, IP: []string{address, "127.0.0.1"}, AgentVersion: "0.2.9",
		Service: &Service{
			Start: []string{"/usr/bin/keylime_agent"}, User: "root", Log: "/var/log/keylime/agent.log",
			PIDFile: "/run/omen-agent/agent.pid", Probe: address + ":9002",
		},
	}
}

// WriteAgentConfig writes agent.toml on a host.
func (h *Host) WriteAgentConfig(certificates []Certificate) error {
	return h.WriteFile(AgentConfig, []byte(h.AgentTOML(certificates)), 0o644)
}

// AgentTOML is agent.toml for this host.
func (h *Host) AgentTOML(certificates []Certificate) string {
	var out strings.Builder
	fmt.Fprintf(&out, `[openbao]
addresses = [%q]
ca_file   = %q
auth_path = "auth/tpm"
role      = %q

[tpm]
device    = %q
event_log = "none"

[pki]
path   = "pki_int"
anchor = %q

[keylime]
client_ca = %q
`, BaoAddress, BaoCAFile, AgentRole, h.TPM.Device(), AnchorFile, ClientsAnchorFile)
	for _, c := range certificates {
		c.write(&out)
	}
	return out.String()
}

func (c Certificate) write(out *strings.Builder) {
	out.WriteString("\n[[certificate]]\n")
	writeString(out, "name", c.Name)
	writeString(out, "profile", c.Profile)
	writeString(out, "common_name", c.CommonName)
	writeList(out, "dns", c.DNS)
	writeList(out, "ip", c.IP)
	writeString(out, "path", c.Path)
	writeString(out, "anchor", c.Anchor)
	writeString(out, "key", c.key())
	writeString(out, "ttl", "24h")
	writeList(out, "agents", c.Agents)
	writeString(out, "agent_version", c.AgentVersion)
	if s := c.Service; s != nil {
		out.WriteString("[certificate.service]\n")
		writeList(out, "start", s.Start)
		writeString(out, "user", s.User)
		writeString(out, "log", s.Log)
		writeString(out, "pid_file", s.PIDFile)
		writeString(out, "probe", s.Probe)
	}
}

func (c Certificate) key() string {
	if c.Key == "" {
		return "sealed"
	}
	return c.Key
}

func writeString(out *strings.Builder, key, value string) {
	if value != "" {
		fmt.Fprintf(out, "%s = %q\n", key, value)
	}
}

func writeList(out *strings.Builder, key string, values []string) {
	if len(values) > 0 {
		fmt.Fprintf(out, "%s = %s\n", key, renderValue("", values))
	}
}
