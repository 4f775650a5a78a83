// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditAgent(t *testing.T) {
	const stock = "# TOML\n[agent]\nuuid = \"x\"\nenable_agent_mtls = false # Changed from: true\nserver_key = 'default'   # here\ntrusted_client_ca = [\"a\", \"b\"]\n\n[agent.other]\nserver_key = \"kept\"\n"
	root, dir := config(t)
	writeConfig(t, root, "agent.conf", stock)
	before := tree(t, root)
	_, err := write(root, dir, in(InMain, Agent))
	must(t, err)
	got, err := os.ReadFile(filepath.Join(root, ConfigDir, "agent.conf"))
	must(t, err)
	want := "# TOML\n[agent]\nuuid = \"x\"\nenable_agent_mtls = true # Changed from: true\nserver_key = \"/etc/keylime/certs/agent.key\"   # here\n" +
		"trusted_client_ca = \"/etc/keylime/certs/" + ClientsBundleFile + "\"\nserver_cert = \"/etc/keylime/certs/agent.crt\"\n\n[agent.other]\nserver_key = \"kept\"\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	agent, _ := Find(Agent)
	last, err := Leave(dir, agent)
	must(t, err)
	must(t, last.Apply(dir))
	same(t, root, before, "left")
}

// TestAgentWithoutMainFile: a copy of the vendor's file would undo the vendor's
// drop-ins, since the agent reads both.
func TestAgentWithoutMainFile(t *testing.T) {
	root, dir := config(t)
	writeConfig(t, root, "../../usr/etc/keylime/agent.conf", "[agent]\nrun_as = \"keylime:tss\"\n")
	writeConfig(t, root, "../../usr/etc/keylime/agent.conf.d/001-run_as.conf", "[agent]\nrun_as = \"keylime:keylime\"\n")
	before := tree(t, root)
	w, err := write(root, dir, in(InMain, Agent))
	must(t, err)
	agent, _ := Find(Agent)
	settings, err := agent.Load(root)
	must(t, err)
	if settings["run_as"] != "keylime:keylime" || settings["server_key"] != "/etc/keylime/certs/agent.key" {
		t.Errorf("%v", settings)
	}
	must(t, w.Undo(dir))
	same(t, root, before, "undone")
}
