// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"
)

// seedFiles are the lines that people put into Keylime's main files by hand,
// byte for byte: comments behind the values, a bare name where Keylime wants a
// list, one certificate for both directions.
//
//go:embed testdata/seed
var seedFiles embed.FS

// Seed is the deployment that was made by hand before Omen: certificates and
// edited main files are in place, and the services run with the configuration
// of before, waiting for a restart that the edited files would not survive.
type Seed struct {
	Verifier, Registrar, Agent *Process
}

// seedRole is the one role that signed everything, for both directions.
const seedRole = "pki_int/roles/keylime-services"

// LaySeed makes the hosts spire and auth what the seed describes: no units,
// verifier and registrar started by hand as root with logs in /var/log, keys
// of root, a ca.crt with the intermediate only, and backups beside the edited
// files. OpenBao must run.
func (w *World) LaySeed(ctx context.Context) (*Seed, error) {
	seed, err := w.startSeedServices(ctx)
	if err != nil {
		return nil, err
	}
	for _, edit := range []struct {
		host           *Host
		template, file string
	}{
		{w.Host(Spire), "verifier", "verifier.conf"},
		{w.Host(Spire), "registrar", "registrar.conf"},
		{w.Host(Auth), "agent", "keylime-agent.conf"},
	} {
		if err := w.editAsSeed(edit.host, edit.template, edit.file); err != nil {
			return nil, err
		}
	}
	return seed, w.laySeedCertificates(ctx)
}

// startSeedServices starts the three services with the old configuration, in
// which the agent's port speaks plain HTTP.
func (w *World) startSeedServices(ctx context.Context) (*Seed, error) {
	spire, auth := w.Host(Spire), w.Host(Auth)
	if err := w.layOldFiles(spire, auth); err != nil {
		return nil, err
	}
	var seed Seed
	for _, service := range []struct {
		process            **Process
		host               *Host
		log, program, port string
	}{
		{&seed.Verifier, spire, "/var/log/keylime-verifier.log", "/usr/bin/keylime_verifier", "8881"},
		{&seed.Registrar, spire, "/var/log/keylime-registrar.log", "/usr/bin/keylime_registrar", "8891"},
		{&seed.Agent, auth, "/var/log/keylime-agent.log", "/usr/bin/keylime_agent", "9002"},
	} {
		w.Watch(service.host, service.log)
		process, err := service.host.Start(service.log, "nohup", service.program)
		if err != nil {
			return nil, err
		}
		if err := process.AwaitPort(ctx, net.JoinHostPort(service.host.IP, service.port)); err != nil {
			return nil, err
		}
		*service.process = process
	}
	return &seed, nil
}

// layOldFiles writes the main files of before. tls_dir is as Keylime ships it,
// so that the verifier makes the certificates with which both start.
func (w *World) layOldFiles(spire, auth *Host) error {
	for _, h := range []*Host{spire, auth} {
		for _, dir := range []string{"/var/lib/keylime", "/run/keylime"} {
			if err := h.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	for _, file := range []struct {
		host *Host
		name Component
		path string
	}{
		{spire, "ca", "/etc/keylime/ca.conf"},
		{spire, "logging", "/etc/keylime/logging.conf"},
		{spire, Verifier, Verifier.ConfigFile()},
		{spire, Registrar, Registrar.ConfigFile()},
		{spire, Tenant, Tenant.ConfigFile()},
		{auth, Agent, Agent.ConfigFile()},
		{auth, Agent, "/etc/keylime/keylime-agent.conf"},
	} {
		text, err := w.oldFile(file.host, file.name)
		if err != nil {
			return err
		}
		if err := file.host.WriteFile(file.path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) oldFile(h *Host, name Component) (string, error) {
	text, err := w.Template(name)
	if err != nil {
		return "", err
	}
	old := addresses(h, name)
	switch name {
	case Verifier, Tenant:
		old["enable_agent_mtls"] = "False"
	case Agent:
		old["enable_agent_mtls"] = "false"
	}
	for key, value := range old {
		if text, err = setKey(text, key, value); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return text, nil
}

// editAsSeed puts the seed's lines into a main file and the file of before
// beside it.
func (w *World) editAsSeed(h *Host, template, file string) error {
	old, err := w.oldFile(h, Component(template))
	if err != nil {
		return err
	}
	edits, err := seedFiles.ReadFile("testdata/seed/" + file)
	if err != nil {
		return err
	}
	text := old
	for line := range strings.Lines(string(edits)) {
		line = strings.TrimSuffix(line, "\n")
		key, _, isSetting := strings.Cut(line, " = ")
		switch {
		case strings.HasPrefix(line, "#"):
			text = line + "\n\n" + text
		case isSetting:
			found, err := keyLine(text, key)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			text = strings.Replace(text, found, line, 1)
		}
	}
	path := "/etc/keylime/" + file
	if err := h.WriteFile(path+".backup-20260210", []byte(old), 0o644); err != nil {
		return err
	}
	return h.WriteFile(path, []byte(text), 0o644)
}

// laySeedCertificates issues with the one wide role, key and certificate made
// by the server, as it was done.
func (w *World) laySeedCertificates(ctx context.Context) error {
	_, err := w.Bao.Write(ctx, seedRole, map[string]any{
		"allowed_domains": []string{"keylime." + Domain}, "allow_subdomains": true, "allow_localhost": true,
		"allow_ip_sans": true, "key_type": "ec", "key_bits": 256, "ttl": "24h", "max_ttl": "24h",
	})
	if err != nil {
		return err
	}
	auth := w.Host(Auth)
	keylime, err := auth.User("keylime")
	if err != nil {
		return err
	}
	tss, err := auth.group("tss")
	if err != nil {
		return err
	}
	root := User{Name: "root"}
	for _, pair := range []struct {
		host  *Host
		name  string
		owner User
	}{
		{w.Host(Spire), "verifier", root}, {w.Host(Spire), "registrar", root},
		{auth, "agent", User{Name: "keylime", UID: keylime.UID, GID: tss}},
	} {
		if err := w.issueSeedPair(ctx, pair.host, pair.name, pair.owner); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) issueSeedPair(ctx context.Context, h *Host, name string, owner User) error {
	secret, err := w.Bao.Write(ctx, "pki_int/issue/keylime-services", map[string]any{
		"common_name": name + ".keylime." + Domain, "alt_names": "localhost", "ip_sans": h.IP + ",127.0.0.1", "ttl": "24h",
	})
	if err != nil {
		return err
	}
	certificate, _ := secret.Data["certificate"].(string)
	key, _ := secret.Data["private_key"].(string)
	for _, file := range []struct {
		name, text string
		private    bool
	}{
		{"ca.crt", strings.TrimSpace(string(w.intermediate)), false},
		{name + ".crt", certificate, false},
		{name + ".key", key, true},
	} {
		mode := 0o644
		if file.private {
			mode = 0o600
		}
		if err := h.WriteFileAs(CertsDir+"/"+file.name, []byte(file.text+"\n"), fs.FileMode(mode), owner.UID, owner.GID); err != nil {
			return err
		}
	}
	return nil
}

// SeedCertificates are a host's certificates as one would configure them on
// top of the seed: the services run as root, as they did by hand, with the logs
// where the seed has them, and the agent's version is for omen-agent to learn.
func SeedCertificates(certificates []Certificate) []Certificate {
	for i := range certificates {
		certificates[i].AgentVersion = ""
		if s := certificates[i].Service; s != nil {
			s.User = "root"
			s.Log = "/var/log/keylime-" + certificates[i].Name + ".log"
		}
	}
	return certificates
}

// AwaitPort waits until something listens there.
func (p *Process) AwaitPort(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return p.Await(ctx, func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}
