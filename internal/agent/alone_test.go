// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/rival"
	"funlab.casa/omen/internal/config"
)

// No renewal begins while a cron line renews too: neither TPM nor OpenBao, which are
// not there, is asked. Once a person says that the line only reads, it does.
func TestRenewRefusesBesideARival(t *testing.T) {
	root := t.TempDir()
	line := filepath.Join(root, "etc", "cron.d", "renew")
	if err := errors.Join(os.MkdirAll(filepath.Dir(line), 0o755),
		os.WriteFile(line, []byte("@daily root cp /root/new/*.crt /etc/keylime/certs/\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Certificates: []config.Certificate{{Name: "verifier", Profile: "keylime-verifier", Path: "pki_int"}}}
	a := &Agent{
		config: c, install: &install.Installer{Root: root}, state: filepath.Join(t.TempDir(), "state"),
		log: slog.New(slog.DiscardHandler), now: time.Now,
	}
	_, err := a.Renew(t.Context(), nil)
	var step *StepError
	if !errors.Is(err, rival.ErrActive) || !errors.As(err, &step) || step.Step != StepInstall {
		t.Fatalf("got %v", err)
	}
	if got := remedy.Of(err); got != "take line 1 out of /etc/cron.d/renew" {
		t.Errorf("remedy %q", got)
	}
	if r := a.recall(); r.Failure == nil || !strings.Contains(r.Failure.Message, "/etc/cron.d/renew:1") {
		t.Errorf("status: %+v", r.Failure)
	}
	c.Keylime.Readers = []string{"/etc/cron.d/renew"}
	if err := a.alone(t.Context()); err != nil {
		t.Errorf("a reader refuses: %v", err)
	}
}
