// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// Where a root is in memory, and where it outlives a reboot (FHS 3.0, section 5.15).
const (
	inRAM = "/dev/shm"
	disk  = "/var/tmp"
)

// modal is an agent whose /run is below folder.
func modal(t *testing.T, device *tpmsim.TPM, folder string, seal config.Seal) *Agent {
	t.Helper()
	root, err := os.MkdirTemp(folder, "omen-mode-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := errors.Join(os.Chmod(root, 0o755), os.Mkdir(filepath.Join(root, "run"), 0o755)); err != nil {
		t.Fatal(err)
	}
	return &Agent{
		config: &config.Config{Seal: seal}, install: &install.Installer{Root: root}, log: slog.New(slog.DiscardHandler),
		tpm: host.Config{Device: device.Device(), EventLog: "none", StateDir: filepath.Join(root, "state")}, state: filepath.Join(root, "state"),
	}
}

func choose(t *testing.T, a *Agent, mode issuer.Mode, c config.Certificate) (*order, error) {
	t.Helper()
	prover, err := host.Open(t.Context(), a.tpm)
	if err != nil {
		t.Fatal(err)
	}
	o := &order{cert: &c, mode: mode}
	return o, errors.Join(a.chooseModes(t.Context(), prover, []*order{o}), prover.Close())
}

func setOwnerAuth(t *testing.T, device *tpmsim.TPM) {
	t.Helper()
	_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
}

// TestAuto is the strongest that the host's TPM and the reader can use.
func TestAuto(t *testing.T) {
	seven := config.Seal{Policy: "pcr", Bank: "sha256", PCRs: []int{7}}
	agent := config.Certificate{Name: "agent", Profile: "keylime-agent"}
	loads := config.Certificate{Name: "tenant", Profile: "keylime-tenant", LoadsTSS2: true}
	for name, row := range map[string]struct {
		prepare func(*testing.T, *tpmsim.TPM)
		folder  string // "" for one in memory
		seal    config.Seal
		cert    config.Certificate
		want    issuer.Mode
		why     string
	}{
		"a Keylime service":           {cert: agent, seal: seven, want: issuer.ModeSealed, why: "Rust agent"},
		"any state":                   {cert: agent, seal: config.Seal{Policy: "none"}, want: issuer.ModeSealed, why: "Rust agent"},
		"a reader of TSS2":            {cert: loads, seal: seven, want: issuer.ModeResident, why: "loads_tss2"},
		"no tmpfs":                    {cert: agent, seal: seven, folder: disk, want: issuer.ModeFile, why: "not a file system in memory"},
		"a reader of TSS2, no tmpfs":  {cert: loads, seal: seven, folder: disk, want: issuer.ModeResident, why: "loads_tss2"},
		"owner password":              {cert: agent, seal: seven, prepare: setOwnerAuth, want: issuer.ModeFile, why: "authorisation value"},
		"owner password, TSS2":        {cert: loads, seal: seven, prepare: setOwnerAuth, want: issuer.ModeFile, why: "authorisation value"},
		"a bank that is not there":    {cert: agent, seal: config.Seal{Policy: "pcr", Bank: "sha384", PCRs: []int{7}}, want: issuer.ModeFile, why: "no such bank"},
		"the same, a reader of TSS2 ": {cert: loads, seal: config.Seal{Policy: "pcr", Bank: "sha384", PCRs: []int{7}}, want: issuer.ModeResident, why: "loads_tss2"},
	} {
		t.Run(name, func(t *testing.T) {
			device := tpmsim.Start(t)
			if row.prepare != nil {
				row.prepare(t, device)
			}
			got, err := choose(t, modal(t, device, cmp.Or(row.folder, inRAM), row.seal), issuer.ModeAuto, row.cert)
			if err != nil {
				t.Fatal(err)
			}
			if got.mode != row.want || !strings.Contains(got.why, row.why) {
				t.Errorf("%q because %q, want %q because of %q", got.mode, got.why, row.want, row.why)
			}
		})
	}
}

// TestAutoIsAskedForOnly: a mode that is named is not looked at.
func TestAutoIsAskedForOnly(t *testing.T) {
	a := modal(t, tpmsim.Start(t), inRAM, config.Seal{Policy: "none"})
	for _, mode := range []issuer.Mode{issuer.ModeFile, issuer.ModeSealed, issuer.ModeResident} {
		got, err := choose(t, a, mode, config.Certificate{Profile: "keylime-agent"})
		if err != nil || got.mode != mode || got.why != "" {
			t.Errorf("%q became %q: %v", mode, got.mode, err)
		}
	}
}

// TestAutoDoesNotGiveInToATPMThatIsBusy: a weaker key is for a TPM that cannot, not
// for one that does not answer just now.
func TestAutoDoesNotGiveInToATPMThatIsBusy(t *testing.T) {
	for _, cause := range []error{host.ErrBusy, host.ErrNoAnswer, host.ErrDenied, host.ErrAbsent, host.ErrPCRMoved, host.ErrStorage} {
		if !passing(t.Context(), fmt.Errorf("seal: %w", cause)) {
			t.Errorf("%v: taken for what the TPM is", cause)
		}
	}
	for _, cause := range []error{nil, host.ErrAuth, install.ErrNotMemory, errors.New("TPM_RC_CURVE")} {
		if passing(t.Context(), cause) {
			t.Errorf("%v: taken for something that passes", cause)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if !passing(ctx, errors.New("cut short")) {
		t.Error("a renewal that was stopped made a weaker key")
	}
}

// vault says that it sealed.
type vault struct{ issuer.Storage }

func (vault) Seal(context.Context, []byte, tpm.SealPolicy) (tpm.Blob, error) {
	return tpm.Blob{Public: []byte{1}, Private: []byte{2}}, nil
}

func sealedText(t *testing.T, policy issuer.Policy) []byte {
	t.Helper()
	key, err := issuer.NewKey(t.Context(), issuer.ModeSealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Seal(t.Context(), vault{}, policy)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestKeyStatus tells what is on the disk, whatever the configuration says by now.
func TestKeyStatus(t *testing.T) {
	state := func(b byte) [][]byte { return [][]byte{bytes.Repeat([]byte{b}, 32)} }
	pcr := sealedText(t, issuer.Policy{Bank: tpm2.TPMAlgSHA256, PCRs: []int{7}, States: [][][]byte{state(1), state(2), state(3)}})
	for name, row := range map[string]struct {
		installed  install.Certificate
		configured string
		want       KeyStatus
	}{
		"nothing": {install.Certificate{}, "auto", KeyStatus{Configured: "auto"}},
		"file":    {install.Certificate{KeyPlace: install.KeyInFile}, "sealed", KeyStatus{Mode: "file", Configured: "sealed"}},
		"TPM":     {install.Certificate{KeyPlace: install.KeyInTPM}, "auto", KeyStatus{Mode: "tpm", Configured: "auto", Why: "because"}},
		"sealed, two announced": {install.Certificate{KeyPlace: install.KeySealed, Sealed: pcr}, "sealed",
			KeyStatus{Mode: "sealed", Configured: "sealed", Policy: &KeyPolicy{Bank: "sha256", PCRs: []int{7}, Announced: 2}}},
		"sealed to any state, after a boot": {install.Certificate{KeyPlace: install.KeySealed, Sealed: sealedText(t, issuer.Policy{}), NotGiven: true}, "file",
			KeyStatus{Mode: "sealed", Configured: "file", NotGiven: true, Policy: &KeyPolicy{}}},
		"spoilt": {install.Certificate{KeyPlace: install.KeySealed, Sealed: []byte("{}")}, "sealed",
			KeyStatus{Mode: "sealed", Configured: "sealed", Problem: "not a sealed key as this program writes them"}},
	} {
		if diff := gocmp.Diff(row.want, describeKey(&config.Certificate{Key: row.configured}, row.installed, "because")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestWithoutTPMKeys(t *testing.T) {
	a := &Agent{config: &config.Config{Certificates: []config.Certificate{
		{Profile: "keylime-verifier"}, {Profile: "keylime-verifier-client"}, {Profile: "keylime-tenant", LoadsTSS2: true}, {Profile: "keylime-agent"},
		{Profile: "keylime-push-agent"},
	}}}
	var services []string
	for _, reader := range a.WithoutTPMKeys() {
		services = append(services, reader.Service)
		if reader.Why == "" {
			t.Errorf("%s: no reason", reader.Service)
		}
	}
	if diff := gocmp.Diff([]string{"keylime_verifier.service", "keylime_agent.service"}, services); diff != "" {
		t.Error(diff)
	}
}

// TestReasonsOutliveOtherRenewals: one certificate is renewed, the reason of the
// other stays.
func TestReasonsOutliveOtherRenewals(t *testing.T) {
	got := merged(map[string]string{"a": "old", "b": "old"}, map[string]string{"a": "new"})
	if diff := gocmp.Diff(map[string]string{"a": "new", "b": "old"}, got); diff != "" {
		t.Error(diff)
	}
	if merged(nil, nil) != nil {
		t.Error("something of nothing")
	}
}
