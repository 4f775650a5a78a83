// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

const plainNew = `{"code":200,"status":"Success","results":{"supported_version":"2.2","supported_versions":["2.1","2.2","2.5"]}}`

func (h *host) agent(version string) Item {
	item := h.item("agent", keylime.Agent)
	item.AgentVersion = version
	return item
}

// plainAgent starts an agent as it is before mTLS is switched on.
func (h *host) plainAgent(answer string) {
	h.t.Helper()
	address := h.agent("").Service.Probe
	command := exec.Command(h.program("keylime_agent"), "-listen", address, "-plain", answer)
	h.must(command.Start())
	h.t.Cleanup(func() {
		_ = command.Process.Kill() // it may have been stopped by the installation
		_ = command.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatal(err)
		}
	}
}

func TestAgentsThatCannotUseAnECKey(t *testing.T) {
	for name, agent := range map[string]struct{ plain, configured string }{
		"nothing known":           {"", ""},
		"old by configuration":    {"", "0.2.8"},
		"no version":              {"", "latest"},
		"pre-release":             {"", "0.2.9~rc1"},
		"old by its answer":       {`{"results":{"supported_version":"2.2"}}`, "0.2.9"},
		"older by its answer":     {`{"results":{"supported_version":"1.0"}}`, ""},
		"not a Keylime answer":    {`[1,2]`, ""},
		"strange version":         {`{"results":{"supported_version":"two"}}`, ""},
		"answer without versions": {`{"results":{}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if agent.plain != "" {
				h.plainAgent(agent.plain)
			}
			err := h.renew(h.agent(agent.configured))
			if err == nil || (agent.configured != "latest" && !errors.Is(err, keylime.ErrOldAgent)) {
				t.Fatalf("got %v", err)
			}
			t.Log(err)
			if errors.Is(err, keylime.ErrOldAgent) && !strings.Contains(remedy.Of(err), "0.2.9") {
				t.Errorf("hint: %q", remedy.Of(err))
			}
			if left := h.snapshot("var/lib/omen-agent/keylime"); len(left) != 1 {
				t.Errorf("written: %v", left)
			}
		})
	}
}

func TestAgentsThatCan(t *testing.T) {
	for name, agent := range map[string]struct{ plain, configured string }{
		"by configuration":      {"", "0.2.9"},
		"by configuration, git": {"", "0.2.9+git3a4d565"},
		"by its list":           {plainNew, ""},
		"by its version":        {`{"results":{"supported_version":"2.5"}}`, ""},
		"answer beats words":    {plainNew, "0.2.8"},
		"next major":            {"", "1:1.0.0-2"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if agent.plain != "" {
				h.plainAgent(agent.plain)
			}
			h.must(h.renew(h.agent(agent.configured)))
			if h.servedSerial(keylime.Agent) != h.installedSerial("agent") {
				t.Error("the new certificate is not served")
			}
			h.must(h.renew(h.agent(""))) // mTLS is on, and the question settled
		})
	}
}

func TestOldAgentMayHaveAnRSAKey(t *testing.T) {
	h := newHost(t)
	item := h.agent("0.2.8")
	item.Chain, item.Key = h.ca.Issue(t, testca.Want{Name: "agent.keylime.test", Usages: testca.Server(), Key: testca.RSA(t)})
	h.must(h.renew(item))
	if err := h.renew(h.agent("0.2.8")); !errors.Is(err, keylime.ErrOldAgent) {
		t.Errorf("EC after RSA: got %v", err)
	}
}

// The seed's own EC certificate on the disk says nothing about the agent.
func TestECFilesByHandSettleNothing(t *testing.T) {
	h := newHost(t)
	chain, key := h.ca.Issue(t, testca.Want{Name: "agent.keylime.test", Usages: testca.Server()})
	h.write("etc/keylime/certs/agent.crt", string(chain), 0o644)
	h.write("etc/keylime/certs/agent.key", string(key), 0o600)
	before := h.contents("etc/keylime/certs")
	if err := h.renew(h.agent("")); !errors.Is(err, keylime.ErrOldAgent) {
		t.Errorf("got %v", err)
	}
	if got := h.contents("etc/keylime/certs"); len(got) != len(before) || got["/agent.crt"] != string(chain) {
		t.Error("the folder was touched")
	}
}

func TestAgentRunsAs(t *testing.T) {
	h := newHost(t)
	h.write("etc/keylime/agent.conf", "[agent]\nrun_as = \"keylime:tss\"\n", 0o440)
	h.must(h.renew(h.agent("0.2.9")))
	if mode, uid := h.mode(certs + "/agent.key"); mode != 0o600 || uid != serviceUID {
		t.Errorf("key: %o of %d", mode, uid)
	}
	h.write("etc/keylime/agent.conf.d/001-run_as.conf", "[agent]\nrun_as = \"gone:tss\"\n", 0o440)
	if err := h.renew(h.agent("0.2.9")); !errors.Is(err, ErrMissingUser) {
		t.Errorf("got %v", err)
	}
	h.write("etc/keylime/agent.conf.d/001-run_as.conf", "[agent\n", 0o440)
	if err := h.renew(h.agent("0.2.9")); err == nil || !strings.Contains(err.Error(), "001-run_as.conf") {
		t.Errorf("got %v", err)
	}
}
