// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

// TestSeed begins where the seed document ends: main files edited by hand with
// backups beside them, a ca.crt without the root, keys of root, verifier and
// registrar started by hand as root, mTLS off at the agent. It ends with mTLS
// working.
func TestSeed(t *testing.T) {
	ctx, s := ownStory(t)
	play(ctx, t, s, story.Step{Name: "two machines", Run: story.BuildWorld})
	play(ctx, t, s, story.Step{Name: "OpenBao", Run: story.StartOpenBao})
	seed := check(s.World.LaySeed(ctx))(t)
	must(t, s.Spire.WriteAgentConfig(world.SeedCertificates(world.SpireCertificates())))
	must(t, s.Auth.WriteAgentConfig(world.SeedCertificates(world.AuthCertificates())))
	play(ctx, t, s, story.Step{Name: "enrolment", Run: story.Enrol})

	t.Run("spire", func(t *testing.T) {
		renewOverSeed(ctx, t, s, s.Spire, map[string]*world.Process{"verifier": seed.Verifier, "registrar": seed.Registrar})
	})
	t.Run("auth", func(t *testing.T) {
		renewOverSeed(ctx, t, s, s.Auth, map[string]*world.Process{"agent": seed.Agent})
	})
	for _, step := range []story.Step{
		{Name: "tenant", Run: story.TalkAsTenant}, {Name: "verifier to agent", Run: story.ReachAgent},
		{Name: "agent's certificate", Run: story.RefuseServerCertificate}, {Name: "second renewal", Run: story.RenewAgain},
	} {
		play(ctx, t, s, step)
	}
	for _, h := range s.World.Hosts() {
		if result := agent(ctx, t, h, "verify"); result.Code != 0 {
			t.Error(result.Unexpected(h, 0))
		}
	}
}

// renewOverSeed renews once and holds the host against what it was.
func renewOverSeed(ctx context.Context, t *testing.T, s *story.Story, h *world.Host, services map[string]*world.Process) {
	t.Helper()
	folder, config, written := set(t, h), configuration(t, h), logsOf(t, h, services)
	renew(ctx, t, h, 0)

	if target := check(h.Readlink(world.CertsDir))(t); target != "/var/lib/omen-agent/keylime/current" {
		t.Errorf("%s leads to %s", world.CertsDir, target)
	}
	if got := generation(t, h); got != "gen-000001" {
		t.Errorf("current is %s", got)
	}
	wantGenerationZero(t, h, folder)
	wantConfiguration(t, config, configuration(t, h))
	for name, process := range services {
		select {
		case <-process.Ended():
		default:
			t.Errorf("the %s of before runs still", name)
		}
		after := check(h.ReadFile("/var/log/keylime-" + name + ".log"))(t)
		if !bytes.HasPrefix(after, written[name]) || len(after) == len(written[name]) {
			t.Errorf("the log of %s was %d bytes, is %d bytes, and was not appended to", name, len(written[name]), len(after))
		}
		wantOneTree(ctx, t, h, name)
	}
	for _, e := range s.Endpoints() {
		if e.Host != h {
			continue
		}
		if leaf := check(s.World.Served(ctx, e.Address))(t); !leaf.Equal(check(h.Installed(e.Name))(t)) {
			t.Errorf("%s serves %x", e.Address, leaf.SerialNumber)
		}
	}
}

// wantGenerationZero wants the folder of before as generation 0, byte for byte.
func wantGenerationZero(t *testing.T, h *world.Host, folder map[string]string) {
	t.Helper()
	const dir = "/var/lib/omen-agent/keylime/gen-000000"
	adopted := map[string]string{}
	for _, entry := range check(h.ReadDir(dir))(t) {
		if entry.Name() == ".omen-manifest" { // ours
			continue
		}
		adopted[entry.Name()] = string(check(h.ReadFile(dir + "/" + entry.Name()))(t))
	}
	if !maps.Equal(folder, adopted) {
		t.Errorf("generation 0 is not the folder of before: %v and %v", slices.Sorted(maps.Keys(adopted)), slices.Sorted(maps.Keys(folder)))
	}
}

// configuration is all of /etc/keylime but the certificates.
func configuration(t *testing.T, h *world.Host) listing {
	t.Helper()
	all := listing{}
	all.walk(t, h, "/etc/keylime")
	maps.DeleteFunc(all, func(name, _ string) bool {
		ours := strings.HasSuffix(name, ".conf.omen") // the way back, hidden from Keylime
		return name == "/etc/keylime" || strings.HasPrefix(name, world.CertsDir) || ours
	})
	return all
}

// wantConfiguration wants main files and backups as they were, and no file more
// than our drop-ins.
func wantConfiguration(t *testing.T, before, after listing) {
	t.Helper()
	backups := 0
	for name := range before {
		if strings.Contains(name, ".backup-") {
			backups++
		}
	}
	if backups == 0 {
		t.Error("the seed has no backups, so that this proves nothing")
	}
	maps.DeleteFunc(after, func(name, _ string) bool {
		_, known := before[name]
		return !known && (strings.HasSuffix(name, ".conf.d/50-omen.conf") || strings.HasSuffix(name, ".conf.d"))
	})
	wantSame(t, before, after)
}

func logsOf(t *testing.T, h *world.Host, services map[string]*world.Process) map[string][]byte {
	t.Helper()
	logs := map[string][]byte{}
	for name := range services {
		logs[name] = check(h.ReadFile("/var/log/keylime-" + name + ".log"))(t)
		if len(logs[name]) == 0 {
			t.Errorf("the log of %s is empty, so that appending to it proves nothing", name)
		}
	}
	return logs
}

// wantOneTree wants every process of a service in the session that omen-agent
// started: nothing of before is left to serve the old certificate.
func wantOneTree(ctx context.Context, t *testing.T, h *world.Host, name string) {
	t.Helper()
	leader := strings.TrimSpace(string(check(h.ReadFile("/run/omen-agent/" + name + ".pid"))(t)))
	result := check(h.Must(ctx, "pgrep", "--full", "/usr/bin/keylime_"+name+"|bin/keylime_"+name))(t)
	for pid := range strings.FieldsSeq(result.Stdout) {
		session := check(h.Run(ctx, "ps", "-o", "sid=", "-p", pid))(t)
		if got := strings.TrimSpace(session.Stdout); session.Code == 0 && got != leader {
			t.Errorf("process %s of %s is in session %s, not %s", pid, name, got, leader)
		}
	}
}
