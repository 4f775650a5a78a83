// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

// TestTalkWithFilesMadeByHand proves the world and the story's judgement
// without omen-agent: with certificates, drop-ins and services put in place by
// hand, Keylime talks, and the agent's certificate opens no door.
func TestTalkWithFilesMadeByHand(t *testing.T) {
	playSteps(t, []Step{
		{"build", BuildWorld}, {"openbao", StartOpenBao}, {"keylime", InstallKeylime},
		{"by hand", installByHand}, {"tenant", TalkAsTenant}, {"agent", ReachAgent}, {"refuse", RefuseServerCertificate},
		{"refuse others", RefuseOthersClient},
	})
}

type manual struct{ host, name, role, cn, ip string }

func installByHand(ctx context.Context, s *Story) (string, error) {
	for _, m := range []manual{
		{"spire", "verifier", "spire.server", "verifier", world.SpireIP},
		{"spire", "verifier-client", "spire.client", "verifier", ""},
		{"spire", "registrar", "spire.server", "registrar", world.SpireIP},
		{"spire", "tenant", "spire.client", "tenant", ""},
		{"auth", "agent", "auth.server", "agent", world.AuthIP},
	} {
		if err := m.install(ctx, s.World); err != nil {
			return "", err
		}
	}
	if err := writeDropIns(s); err != nil {
		return "", err
	}
	for i, program := range []string{"keylime_verifier", "keylime_registrar", "keylime_agent"} {
		e := s.Endpoints()[i]
		if err := startByHand(ctx, s, e, program); err != nil {
			return "", err
		}
	}
	return "five pairs, four drop-ins, three services", nil
}

func (m manual) install(ctx context.Context, w *world.World) error {
	mount := "pki_int"
	if strings.HasSuffix(m.role, ".client") {
		mount = world.ClientsPath
	}
	secret, err := w.Bao.Write(ctx, mount+"/issue/"+m.role, map[string]any{
		"common_name": m.cn + ".keylime." + world.Domain, "ip_sans": m.ip, "ttl": "1h",
	})
	if err != nil {
		return err
	}
	h := w.Host(m.host)
	user, err := h.User("keylime")
	if err != nil {
		return err
	}
	for name, field := range map[string]string{".crt": "certificate", ".key": "private_key"} {
		text := secret.Data[field].(string) + "\n"
		if err := h.WriteFileAs(world.CertsDir+"/"+m.name+name, []byte(text), 0o600, user.UID, user.GID); err != nil {
			return err
		}
	}
	bundle := append(append([]byte{}, w.IntermediatePEM()...), w.RootPEM()...)
	return errors.Join(h.WriteFile(world.CertsDir+"/ca.crt", bundle, 0o644), h.WriteFile(world.CertsDir+"/clients-ca.crt", w.ClientsPEM(), 0o644))
}

func writeDropIns(s *Story) error {
	server := "[%[1]s]\ntls_dir = /etc/keylime/certs\nserver_key = %[1]s.key\nserver_cert = %[1]s.crt\ntrusted_client_ca = ['clients-ca.crt']\n"
	for component, text := range map[world.Component]string{
		world.Verifier:  fmt.Sprintf(server, "verifier") + "client_key = verifier-client.key\nclient_cert = verifier-client.crt\ntrusted_server_ca = ['ca.crt']\n",
		world.Registrar: fmt.Sprintf(server, "registrar"),
		world.Tenant:    "[tenant]\ntls_dir = /etc/keylime/certs\nclient_key = tenant.key\nclient_cert = tenant.crt\ntrusted_server_ca = ['ca.crt']\n",
	} {
		if err := s.Spire.WriteFile(component.ConfigFile()+".d/50-hand.conf", []byte(text), 0o644); err != nil {
			return err
		}
	}
	agent := "[agent]\nserver_key = \"/etc/keylime/certs/agent.key\"\nserver_cert = \"/etc/keylime/certs/agent.crt\"\ntrusted_client_ca = \"/etc/keylime/certs/clients-ca.crt\"\n"
	return s.Auth.WriteFile(world.Agent.ConfigFile()+".d/50-hand.conf", []byte(agent), 0o644)
}

func startByHand(ctx context.Context, s *Story, e Endpoint, program string) error {
	command := []string{"/usr/bin/" + program}
	if program != "keylime_agent" {
		command = append(strings.Fields("setpriv --reuid keylime --regid keylime --init-groups"), command...)
	}
	process, err := e.Host.Start("/var/log/keylime/"+e.Name+".log", command[0], command[1:]...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return process.Await(ctx, func(ctx context.Context) error { return s.checkServed(ctx, e) })
}
