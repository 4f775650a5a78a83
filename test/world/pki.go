// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"strings"
)

// HostNames are the names and addresses one host may have in certificates.
type HostNames struct {
	Host    string   // the operator's name for it: spire
	Server  []string // DNS names with serverAuth
	Client  []string // DNS names with clientAuth; none: the host gets no client certificate
	Address []string // IP addresses, with serverAuth only
}

// shared is what every host may call itself.
var shared = HostNames{Server: []string{"localhost"}, Address: []string{"127.0.0.1", "::1"}}

// StoryNames are the names the two hosts of the story have.
func StoryNames() []HostNames {
	return []HostNames{
		{
			Host:    Spire,
			Server:  []string{"verifier.keylime." + Domain, "registrar.keylime." + Domain},
			Client:  []string{"verifier.keylime." + Domain, "tenant.keylime." + Domain},
			Address: []string{SpireIP},
		},
		{Host: Auth, Server: []string{"agent.keylime." + Domain}, Address: []string{AuthIP}},
	}
}

// bookOfOmens makes the two CAs. The intermediate gets its own certificate
// only, as most deployments have it: the root is pinned on the hosts.
func bookOfOmens() group {
	return group{name: "pki", requests: []request{
		{"mount-root", "sys/mounts/pki_root", map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}}},
		{"mount-int", "sys/mounts/pki_int", map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "43800h"}}},
		{"root", "pki_root/root/generate/internal", map[string]any{
			"common_name": "Book of Omens Root CA", "issuer_name": "book-of-omens-root",
			"key_type": "ec", "key_bits": 384, "ttl": "87600h",
		}},
		{"csr", "pki_int/intermediate/generate/internal", map[string]any{
			"common_name": "Book of Omens Intermediate CA", "key_type": "ec", "key_bits": 256,
		}},
		{"sign", "pki_root/root/sign-intermediate", map[string]any{
			"csr": fromResponse{"csr", "csr"}, "common_name": "Book of Omens Intermediate CA",
			"ttl": "43800h", "max_path_length": 0,
		}},
		{"set-signed", "pki_int/intermediate/set-signed", map[string]any{"certificate": fromResponse{"sign", "certificate"}}},
	}}
}

// ClientsPath is the mount of the CA that Keylime's client certificates come from,
// and ClientsAnchorFile its root on every host.
const (
	ClientsPath       = "pki_keylime_clients"
	ClientsAnchorFile = "/etc/omen-agent/keylime-clients-root.pem"
)

// keylimeClients makes the CA of Keylime's client certificates: one root that signs
// them itself. Whoever holds one is an administrator of Keylime, so that nothing
// else may come from it.
func keylimeClients() group {
	return group{name: "clients", requests: []request{
		{"mount", "sys/mounts/" + ClientsPath, map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}}},
		{"root", ClientsPath + "/root/generate/internal", map[string]any{
			"common_name": "Keylime Clients CA", "key_type": "ec", "key_bits": 256, "ttl": "87600h", "max_path_length": 0,
		}},
	}}
}

// hostRequests make the PKI roles and the policy of one host: whoever enrols a
// host writes both, names and paths literally.
func hostRequests(names HostNames) []request {
	requests := []request{{names.Host + "-server", "pki_int/roles/" + names.Host + ".server", roleData(names, true)}}
	if len(names.Client) > 0 {
		requests = append(requests, request{names.Host + "-client", ClientsPath + "/roles/" + names.Host + ".client", roleData(names, false)})
	}
	return append(requests, request{names.Host + "-policy", "sys/policies/acl/omen-host-" + names.Host, map[string]any{"policy": hostPolicy(names)}})
}

// roleData is a PKI role that signs exactly this host's names, for servers or
// for clients and never for both.
func roleData(names HostNames, server bool) map[string]any {
	domains, addresses := names.Client, []string(nil)
	if server {
		domains = append(append([]string{}, names.Server...), shared.Server...)
		addresses = append(append([]string{}, names.Address...), shared.Address...)
	}
	data := map[string]any{
		"allowed_domains": domains, "allow_bare_domains": true, "enforce_hostnames": true,
		"allow_subdomains": false, "allow_glob_domains": false, "allow_wildcard_certificates": false,
		"allow_localhost": false, "allow_any_name": false, "cn_validations": []string{"hostname"},
		"allow_ip_sans": server, "allowed_uri_sans": []string{}, "allowed_other_sans": []string{},
		"server_flag": server, "client_flag": !server, "code_signing_flag": false, "email_protection_flag": false,
		"key_type": "ec", "key_bits": 256, "key_usage": []string{"DigitalSignature"},
		"ttl": "24h", "max_ttl": "24h", "not_before_duration": "60s",
		"not_after_bound": "forbid", "not_before_bound": "forbid",
		"no_store": false, "generate_lease": false,
	}
	if server {
		data["allowed_ip_sans_cidr"] = cidrs(addresses)
	}
	return data
}

func cidrs(addresses []string) []string {
	var out []string
	for _, address := range addresses {
		bits := "/32"
		if strings.Contains(address, ":") {
			bits = "/128"
		}
		out = append(out, address+bits)
	}
	return out
}

func hostPolicy(names HostNames) string {
	paths := []string{"pki_int/sign/" + names.Host + ".server"}
	if len(names.Client) > 0 {
		paths = append(paths, ClientsPath+"/sign/"+names.Host+".client")
	}
	var out strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&out, "path %q {\n  capabilities = [\"update\"]\n  required_parameters = [\"csr\"]\n"+
			"  allowed_parameters = { \"csr\" = [], \"ttl\" = [], \"format\" = [] }\n}\n", path)
	}
	return out.String()
}
