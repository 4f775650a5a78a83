// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

const pluginProgram = "openbao-plugin-auth-tpm"

// programs are what the reader of the page has downloaded or built, and its next
// version.
var programs = []string{"omen-agent", pluginProgram}

const nextVersion = "v0.1.1"

// openWorld makes the two hosts as the deployment by hand left them. Nothing of ours
// is on them. The token is the one in the script that renews.
func openWorld(t *testing.T) (_ context.Context, _ *world.World, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	w, err := world.New()
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.Logs(15))
		}
		cancel()
		must(t, w.Close())
	})
	for _, at := range [][2]string{{world.Spire, world.SpireIP}, {world.Auth, world.AuthIP}} {
		h, err := w.AddHost(ctx, at[0], at[1])
		must(t, err)
		must(t, strip(ctx, h))
	}
	spire := w.Host(world.Spire)
	must(t, w.StartSeedOpenBao(ctx, spire))
	_, err = w.LaySeed(ctx)
	must(t, err)
	token, err = w.Bao.SeedToken(ctx)
	must(t, err)
	for _, h := range w.Hosts() {
		must(t, h.LayRenewal(ctx, token))
	}
	return ctx, w, token
}

// strip takes off the host what the world puts there for other tests.
func strip(ctx context.Context, h *world.Host) error {
	_, err := h.Must(ctx, "rm", "-r", "/usr/bin/omen-agent", "/etc/omen-agent")
	return err
}

// download puts the programs where the reader types.
func download(ctx context.Context, t *testing.T, w *world.World) {
	t.Helper()
	next := t.TempDir()
	for _, name := range programs {
		present, err := w.Tools.Program(name)
		must(t, err)
		coming := filepath.Join(next, name)
		must(t, build(ctx, coming))
		for _, h := range w.Hosts() {
			must(t, errors.Join(copyTo(h, present, home+"/"+name), copyTo(h, coming, home+"/"+name+"-"+nextVersion)))
		}
	}
}

// build makes the next version of a program.
func build(ctx context.Context, program string) error {
	flags := "-s -w -X main.version=" + nextVersion + " -X funlab.casa/omen/plugin.Version=" + nextVersion
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags="+flags, "-o", program, "../../cmd/"+filepath.Base(program))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func copyTo(h *world.Host, from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return h.WriteFile(to, text, 0o755)
}
