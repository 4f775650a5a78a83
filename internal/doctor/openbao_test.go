// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/test/authority"
	"funlab.casa/omen/test/cluster"
	"funlab.casa/omen/tpmsim"
)

// common is the OpenBao that tests share, made by the first that asks.
var common keeper

type keeper struct {
	server *server
	dir    string
}

func (k *keeper) close() error {
	if k.server == nil {
		return nil
	}
	return errors.Join(k.server.Close(), os.RemoveAll(k.dir))
}

// server is a real OpenBao with the plugin of this tree and a PKI.
type server struct {
	*cluster.Cluster
	hosts int
}

const pluginVersion = "v0.1.0"

func openBao(t *testing.T) *server {
	t.Helper()
	if common.server != nil {
		return common.server
	}
	dir, err := os.MkdirTemp("", "omen-doctor-plugin-")
	must(t, err)
	common.dir = dir
	program := filepath.Join(dir, "plugin")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -X funlab.casa/omen/plugin.Version="+pluginVersion, "-o", program, "../../cmd/openbao-plugin-auth-tpm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build plugin: %v\n%s", err, out)
	}
	vendor := tpmsim.TestCA(t)
	c, err := cluster.Start(context.Background(), cluster.Config{
		Nodes: 1, Plugins: []cluster.Plugin{{Name: "tpm", Version: pluginVersion, Binary: program}},
		Initialise: func(addresses []string) []cluster.Group { return initialise(vendor, addresses) },
	})
	must(t, err)
	common.server = &server{Cluster: c}
	return common.server
}

func initialise(vendor *tpmsim.CA, addresses []string) []cluster.Group {
	audience, err := attest.Audience(addresses[0], "", "auth/tpm")
	if err != nil {
		panic(err)
	}
	role := func(name, wayIn string) cluster.Request {
		return cluster.Request{Name: "role-" + name, Path: "auth/tpm/role/" + name, Data: map[string]any{
			"pcrs": []string{"0", "2", "4", "7"}, "way_in": wayIn, "ek_classes": "virtual", "token_no_default_policy": true,
		}}
	}
	pki := func(name string) []cluster.Request {
		return []cluster.Request{
			{Name: name, Path: "sys/mounts/" + name, Data: map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "8760h"}}},
			{Name: name + "-root", Path: name + "/root/generate/internal", Data: map[string]any{"common_name": name, "key_type": "ec", "ttl": "8760h"}},
		}
	}
	return []cluster.Group{
		{Name: "tpm", Requests: []cluster.Request{
			{Name: "enable", Path: "sys/auth/tpm", Data: map[string]any{"type": "tpm", "plugin_version": pluginVersion}},
			{Name: "config", Path: "auth/tpm/config", Data: map[string]any{
				"virtual_roots":    string(authority.CertificatePEM(vendor.Root().Raw)),
				"ek_intermediates": string(authority.CertificatePEM(vendor.Issuer().Raw)), "audiences": []string{audience},
			}},
			role("keylime", "allow-list"), role("waiting", "pending"),
		}},
		{Name: "pki", Requests: append(pki("pki_int"), pki("pki_clients")...)},
	}
}

func (s *server) write(t *testing.T, path string, data map[string]any) {
	t.Helper()
	_, err := s.Nodes[0].Write(t.Context(), path, data)
	must(t, err)
}

func (s *server) delete(t *testing.T, path string) {
	t.Helper()
	must(t, s.Nodes[0].Delete(t.Context(), path))
}

// serverHost is a host that knows the real OpenBao, which does not know it.
func serverHost(t *testing.T) *machine { return serverHostOf(t, 0) }

// serverHostOf is one with TPM number i.
func serverHostOf(t *testing.T, i int) *machine {
	t.Helper()
	s := openBao(t)
	h := hostOf(t, tpmsim.Device(t, i))
	h.openbao["addresses"] = fmt.Sprintf("[%q]", s.Nodes[0].Address)
	h.openbao["ca_file"] = quoted(s.CAFile)
	return h
}

// enrolled is a host as OpenBao has it.
type enrolled struct {
	*machine
	server *server
	name   string
	roles  map[string]map[string]any // PKI, by usage
}

func enrolledHost(t *testing.T) *enrolled {
	t.Helper()
	h := &enrolled{machine: serverHost(t), server: openBao(t)}
	h.server.hosts++
	h.name = fmt.Sprintf("host%d", h.server.hosts)
	id := h.identity()
	h.server.write(t, "auth/tpm/host/"+h.name, map[string]any{"tpm_ids": string(id), "roles": "keylime"})
	t.Cleanup(func() { // all hosts of this package have the same TPM
		must(t, h.server.Nodes[0].Delete(context.Background(), "auth/tpm/host/"+h.name))
		must(t, h.server.Nodes[0].Delete(context.Background(), "auth/tpm/tombstone/"+string(id)))
	})
	h.certificate("tenant", "profile = \"keylime-tenant\"\ncommon_name = \"tenant.keylime.test\"\nkey = \"file\"\npath = \"pki_clients\"")
	h.certificate("web", "profile = \"general\"\nusage = \"server\"\ncommon_name = \"web.keylime.test\"\nkey = \"file\"\n[certificate.files]\nfolder = \"/etc/omen-doctor-test/web\"")
	h.roles = pkiRoles(t)
	h.allow("pki_int", "server", []string{"web.keylime.test", "localhost"})
	h.allow("pki_clients", "client", []string{"tenant.keylime.test"})
	h.policy(h.signPath("pki_int", h.name+".server"), h.signPath("pki_clients", h.name+".client"))
	return h
}

func (h *enrolled) signPath(mount, role string) string { return mount + "/sign/" + role }

// identity is the TPM ID of the host.
func (h *machine) identity() attest.TPMID {
	h.t.Helper()
	c, err := config.LoadTPM(h.write())
	must(h.t, err)
	identity, err := agent.Identify(h.t.Context(), c, boot("sha256"))
	must(h.t, err)
	return identity.TPMID
}

// pkiRoles are those that the documentation tells people to write.
func pkiRoles(t *testing.T) map[string]map[string]any {
	t.Helper()
	text, err := os.ReadFile("../../issuer/testdata/pki-roles.json")
	must(t, err)
	var recipe struct{ Server, Client map[string]any }
	must(t, json.Unmarshal(text, &recipe))
	return map[string]map[string]any{"server": recipe.Server, "client": recipe.Client}
}

// allow writes a role of this host; change, if any, bends it.
func (h *enrolled) allow(mount, usage string, domains []string, change ...map[string]any) {
	h.t.Helper()
	role := maps.Clone(h.roles[usage])
	role["allowed_domains"] = domains
	if usage == "server" {
		role["allowed_ip_sans_cidr"] = []string{"127.0.0.1/32"}
	}
	for _, bend := range change {
		maps.Copy(role, bend)
	}
	h.server.write(h.t, mount+"/roles/"+h.name+"."+usage, role)
}

func (h *enrolled) policy(paths ...string) {
	h.t.Helper()
	var text strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&text, "path %q {\n capabilities = [\"update\"]\n required_parameters = [\"csr\"]\n allowed_parameters = { \"csr\" = [], \"ttl\" = [], \"format\" = [\"pem\"] }\n}\n", path)
	}
	h.server.write(h.t, "sys/policies/acl/omen-host-"+h.name, map[string]any{"policy": text.String()})
}

// fakeNode says of itself what a real one cannot be made to say.
func fakeNode(h *machine, health map[string]any) {
	h.t.Helper()
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(health) }))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.StartTLS()
	h.t.Cleanup(node.Close)
	h.place("fake.pem", string(certPEM(node.Certificate().Raw)), 0o644)
	h.openbao["addresses"], h.openbao["ca_file"] = fmt.Sprintf("[%q]", node.URL), quoted(h.path("fake.pem"))
}

var serverBreaks = map[string]func(*testing.T){
	"openbao-dns": func(t *testing.T) {
		h := bareHost(t)
		h.openbao["addresses"] = `["https://localhost:8200", "https://127.0.0.1:8200"]`
		h.good("openbao-dns")
		h.openbao["addresses"] = `["https://nobody.invalid:8200"]`
		h.bad("openbao-dns", Problem, "nobody.invalid")
	},
	"openbao-reachable": func(t *testing.T) {
		h := serverHost(t)
		h.good("openbao-reachable")
		h.openbao["addresses"] = `["https://127.0.0.1:1"]`
		h.bad("openbao-reachable", Problem, "connection refused")
	},
	"openbao-tls": func(t *testing.T) {
		h := serverHost(t)
		h.good("openbao-tls")
		h.openbao["tls_server_name"] = `"another.test"`
		h.bad("openbao-tls", Problem, "bad-certificate")
		delete(h.openbao, "tls_server_name")
		h.openbao["ca_file"] = quoted(h.path("root.pem"))
		h.bad("openbao-tls", Problem, "unknown-ca")
	},
	"openbao-seal": func(t *testing.T) {
		h := serverHost(t)
		h.good("openbao-seal")
		node := openBao(t).Nodes[0]
		client, err := node.Admin()
		must(t, err)
		must(t, client.Sys().SealWithContext(t.Context()))
		h.bad("openbao-seal", Problem, "sealed")
		must(t, node.Stop())
		must(t, node.Start(t.Context()))
		h.good("openbao-seal")
		fakeNode(h, map[string]any{"initialized": false, "sealed": true, "version": "2.7.2", "server_time_utc": time.Now().Unix()})
		h.bad("openbao-seal", Problem, "not initialised")
		fakeNode(h, map[string]any{"initialized": true, "standby": true, "version": "2.7.2", "server_time_utc": time.Now().Unix()})
		h.bad("openbao-seal", Warning, "no node that is listed is active")
	},
	"openbao-version": func(t *testing.T) {
		h := serverHost(t)
		h.good("openbao-version")
		for _, version := range []string{"2.6.3", "1.19.0", "unknown"} {
			fakeNode(h, map[string]any{"initialized": true, "version": version, "server_time_utc": time.Now().Unix()})
			h.bad("openbao-version", Warning, version)
		}
	},
	"clock": func(t *testing.T) {
		h := serverHost(t)
		h.good("clock")
		fakeNode(h, map[string]any{"initialized": true, "version": "2.7.2", "server_time_utc": time.Now().Add(-time.Hour).Unix()})
		h.bad("clock", Problem, "differ by 1h0m")
		fakeNode(h, map[string]any{"initialized": true, "version": "2.7.2", "server_time_utc": time.Now().Add(15 * time.Second).Unix()})
		h.bad("clock", Warning, "differ by 15s")
	},
}
