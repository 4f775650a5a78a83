// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"bytes"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed testdata
var testdata embed.FS

// The units, as Keylime names them.
const (
	verifierUnit  = "keylime_verifier.service"
	registrarUnit = "keylime_registrar.service"
	agentUnit     = "keylime_agent.service"
)

// layKeylime lays down inside what Keylime's packages would: user, folders,
// programs, main files and units.
func layKeylime(venv string) error {
	for name, path := range map[string]string{
		"keylime-sysusers.conf":        "/usr/lib/sysusers.d/keylime.conf",
		"keylime-tmpfiles.conf":        "/usr/lib/tmpfiles.d/keylime.conf",
		verifierUnit:                   "/usr/lib/systemd/system/" + verifierUnit,
		registrarUnit:                  "/usr/lib/systemd/system/" + registrarUnit,
		agentUnit:                      "/usr/lib/systemd/system/" + agentUnit,
		"var-lib-keylime-secure.mount": "/usr/lib/systemd/system/var-lib-keylime-secure.mount",
	} {
		text, err := testdata.ReadFile("testdata/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	if err := linkPrograms(venv); err != nil {
		return err
	}
	if err := layConfiguration(venv); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"systemd-sysusers"}, {"systemd-tmpfiles", "--create", "keylime.conf"}, {"systemctl", "daemon-reload"},
	} {
		if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", command, err, output)
		}
	}
	return nil
}

func linkPrograms(venv string) error {
	for _, name := range []string{"keylime_verifier", "keylime_registrar"} {
		if err := os.Symlink(filepath.Join(venv, "bin", name), "/usr/bin/"+name); err != nil {
			return err
		}
	}
	for name := range parts {
		if err := os.Symlink(program, part(name)); err != nil {
			return err
		}
	}
	return nil
}

// layConfiguration copies Keylime's own main files. tmpfiles.d gives them their
// owner and mode.
func layConfiguration(venv string) error {
	if err := os.Mkdir("/etc/keylime", 0o755); err != nil {
		return err
	}
	for _, component := range []string{"verifier", "registrar", "tenant", "agent", "ca", "logging"} {
		text, err := os.ReadFile(filepath.Join(venv, "share", "keylime", component+".conf"))
		if err != nil {
			return err
		}
		if component == "agent" {
			text = bytes.Replace(text, []byte("\nregistrar_port = 8890\n"), []byte(fmt.Sprintf("\nregistrar_port = %d\n", plainPort)), 1)
		}
		if err := os.WriteFile("/etc/keylime/"+component+".conf", text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// plainPort is where the stand-in for the agent is told that its registrar is. Most
// tests start no registrar, and an agent is not stopped while its registrar is away.
const plainPort = 18890

// playRegistrar listens there as long as the tests run.
func playRegistrar() error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", plainPort))
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connection.Close()
		}
	}()
	return nil
}
