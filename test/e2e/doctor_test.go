// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/internal/doctor"
	"funlab.casa/omen/test/world"
)

// TestDoctor: on the hosts of the story, where all works, the doctor finds no problem
// and looks at everything that there is; what it warns of is what this world is weak in.
func TestDoctor(t *testing.T) {
	ctx, l := shared(t)
	for _, h := range []*world.Host{l.Spire, l.Auth} {
		result := agent(ctx, t, h, "--output", "json", "doctor")
		if result.Code != 0 {
			t.Error(result.Unexpected(h, 0))
		}
		var found []doctor.Result
		must(t, json.Unmarshal([]byte(result.Stdout), &found))
		warned := []string{"tpm-software", "tpm-measurements", "tpm-event-log", "memory"} // the last where the machine swaps
		absent := []string{"spire-server", "agent-service", "unseal-service", "daemon-reload", "metrics-textfile", "sinks", "workload-api"}
		if h == l.Spire {
			absent = append(absent, "keylime-agent-version")
		}
		for _, r := range found {
			fine := r.Status == doctor.OK || r.Status == doctor.Warning && slices.Contains(warned, r.Check) ||
				r.Status == doctor.NotApplicable && slices.Contains(absent, r.Check)
			if !fine {
				t.Errorf("%s: %+v", h.Name, r)
			}
		}
	}
}

// diagnosed are the problems that the doctor finds, by check, and its exit code.
func diagnosed(ctx context.Context, t *testing.T, h *world.Host, command ...string) (problems map[string]string, code int) {
	t.Helper()
	result := check(h.Run(ctx, command[0], append(command[1:], "--output", "json", "doctor")...))(t)
	var found []doctor.Result
	must(t, json.Unmarshal([]byte(result.Stdout), &found))
	problems = map[string]string{}
	for _, r := range found {
		if r.Status == doctor.Problem {
			problems[r.Check] = r.Remedy
		}
	}
	return problems, result.Code
}

// TestDoctorGetsToThePoint: where one thing is wrong with a host that works, the doctor
// finds that, and nothing wrong with what only cannot be looked at.
func TestDoctorGetsToThePoint(t *testing.T) {
	ctx, l := shared(t)
	const program = "/usr/bin/omen-agent"
	text := string(check(l.Auth.ReadFile(world.AgentConfig))(t))
	files := 0
	bent := func(old, changed string) []string {
		t.Helper()
		files++
		file := fmt.Sprintf("/etc/omen-agent/bent-%d.toml", files)
		if !strings.Contains(text, old) {
			t.Fatalf("agent.toml does not hold %q:\n%s", old, text)
		}
		must(t, l.Auth.WriteFile(file, []byte(strings.Replace(text, old, changed, 1)), 0o644))
		return []string{program, "--config", file}
	}
	ca := check(l.Auth.ReadFile("/etc/omen-agent/book-of-omens-root.pem"))(t)
	must(t, l.Auth.WriteFile("/etc/omen-agent/another-ca.pem", ca, 0o644))
	for what, row := range map[string]struct {
		command  []string
		code     int
		problems []string
	}{
		"nothing is wrong":            {[]string{program}, 0, nil},
		"another CA is trusted":       {bent("openbao-ca.pem", "another-ca.pem"), 4, []string{"openbao-tls"}},
		"nobody listens there":        {bent(":8200", ":8201"), 4, []string{"openbao-reachable"}},
		"the auth path is wrong":      {bent(`auth_path`, "auth_path = \"auth/none\"\n# "), 3, []string{"auth-mount"}},
		"the role is wrong":           {bent(`role`, "role = \"none\"\n# "), 3, []string{"auth-role"}},
		"somebody else asks":          {append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, program), 2, []string{"root", "tpm-device"}},
		"there is no agent.toml":      {[]string{program, "--config", "/etc/omen-agent/none.toml"}, 2, []string{"configuration", "tpm-device"}},
		"agent.toml is not TOML":      {bent("[tpm]", "[tpm"), 2, []string{"configuration", "tpm-device"}},
		"agent.toml has a wrong word": {bent("common_name", "comon_name"), 2, []string{"configuration"}},
	} {
		problems, code := diagnosed(ctx, t, l.Auth, row.command...)
		if got := slices.Sorted(maps.Keys(problems)); code != row.code || !slices.Equal(got, row.problems) {
			t.Errorf("%s: exit code %d, problems %v", what, code, problems)
		}
	}
}
