// SPDX-License-Identifier: Apache-2.0

//go:build long && amd64

package vm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"funlab.casa/omen/internal/doctor"
	"funlab.casa/omen/test/debian"
	"funlab.casa/omen/test/world"
)

// A machine falls asleep a little before a renewal is due, and sleeps longer. A timer
// that stood still meanwhile would have left to run when it wakes, which is not soon.
const (
	left   = 60 * time.Second
	asleep = 65 * time.Second
	soon   = 45 * time.Second
)

// wantReadyFirst wants the service to have been started when the agent said that it may.
func (m *machine) wantReadyFirst() {
	m.T.Helper()
	ready, started := m.Moment(debian.AgentService, "ActiveEnterTimestampMonotonic"), m.Moment(debian.KeylimeAgent, "ExecMainStartTimestampMonotonic")
	if ready == 0 || started < ready {
		m.T.Errorf("the agent was ready at %s, Keylime's agent started at %s", ready, started)
	}
}

// wantHealth wants doctor to find that the TPM is a program, and nothing else.
func (m *machine) wantHealth() {
	m.T.Helper()
	var results []doctor.Result
	m.Must(json.Unmarshal([]byte(m.Inside("omen-agent", "--output", "json", "doctor")), &results))
	var remarks, good []string
	for _, r := range results {
		switch r.Status {
		case doctor.OK:
			good = append(good, r.Check)
		case doctor.Problem, doctor.Warning:
			remarks = append(remarks, r.Check)
		}
	}
	if !slices.Equal(remarks, []string{"tpm-software"}) || !slices.Contains(good, "tpm-event-log") || !slices.Contains(good, "login") {
		m.T.Errorf("doctor remarks %v:\n%s", remarks, m.Inside("omen-agent", "doctor"))
	}
}

// A bootState is what OpenBao read out of the event log that the agent sent from within
// its sandbox.
type bootState struct {
	ID    string `json:"state_id"`
	State struct {
		Components []struct {
			Name string `json:"name"`
			PCR  int    `json:"pcr"`
		} `json:"components"`
	} `json:"state"`
}

// booted wants the kernel to be among what the firmware measured.
func (m *machine) booted() bootState {
	m.T.Helper()
	client, err := m.Story.World.Bao.Admin(m.Context)
	m.Must(err)
	secret, err := client.Logical().ReadWithContext(m.Context, "auth/tpm/verdict/auth")
	m.Must(err)
	text, err := json.Marshal(secret.Data["roles"])
	m.Must(err)
	var roles map[string]bootState
	m.Must(json.Unmarshal(text, &roles))
	state := roles[world.AgentRole]
	for _, component := range state.State.Components {
		if component.Name == "/kernel" && component.PCR == 4 {
			return state
		}
	}
	m.T.Fatalf("no kernel was measured: %s", text)
	return state
}

// acceptOnly has the host let in only when it has booted what it had booted here.
func (m *machine) acceptOnly(state bootState) {
	m.T.Helper()
	m.write("auth/tpm/baseline/fleet/promote", map[string]any{"host": "auth", "role": world.AgentRole, "state_id": state.ID, "ttl": "720h"})
	m.write("auth/tpm/role/"+world.AgentRole, map[string]any{"baselines": []string{"fleet"}, "pcr_values": "enforce", "boot_components": "enforce"})
}

// renewal is when the next one is due.
func (m *machine) renewal() time.Time {
	m.T.Helper()
	var status struct {
		Next time.Time `json:"next_renewal"`
	}
	m.Must(json.Unmarshal([]byte(m.Inside("omen-agent", "--output", "json", "status")), &status))
	return status.Next
}

// sleep has the machine sleep: memory alone has power, and the TPM's state is saved. What
// is said to it meanwhile may be lost.
func (m *machine) sleep(length time.Duration) {
	m.T.Helper()
	m.Inside("systemd-run", "rtcwake", "--utc", "--mode", "mem", "--seconds", strconv.Itoa(int(length.Seconds())))
	ctx, cancel := context.WithTimeout(m.Context, length+m.Patience)
	defer cancel()
	m.Must(world.Await(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		said, err := m.Run(ctx, "journalctl", "--no-pager", "-b", "-k", "-o", "cat")
		if err == nil && !strings.Contains(string(said), "Waking up from system sleep state S3") {
			err = errors.New("it has not woken up")
		}
		return err
	}))
}

// plug gives the TPM its driver back.
func (m *machine) plug() {
	m.T.Helper()
	m.Inside("sh", "-c", driver)
}

// others are programs that use the TPM at the same time: they read, and make and use a
// key. The first that fails ends them.
const others = `set -e; while :; do
	tpm2_pcrread sha256:0,7
	tpm2_createprimary -C o -G ecc -c "$1"
	tpm2_readpublic -c "$1"
done >/dev/null`

func (m *machine) othersUse() {
	m.T.Helper()
	for _, name := range []string{"one", "two"} {
		m.Inside("systemd-run", "--unit="+name, "--setenv=TPM2TOOLS_TCTI=device:/dev/tpmrm0", "sh", "-c", others, "sh", "/run/"+name+".context")
	}
}

// othersEnd wants them to have got on all the time.
func (m *machine) othersEnd() {
	m.T.Helper()
	m.Expect(map[string]string{"one.service": "active success", "two.service": "active success"})
	m.Inside("systemctl", "stop", "one.service", "two.service")
}

// awaitState waits until a property of a unit has a value.
func (m *machine) awaitState(unit, what, property, want string) {
	m.T.Helper()
	ctx, cancel := context.WithTimeout(m.Context, m.Patience)
	defer cancel()
	m.Must(world.Await(ctx, func(context.Context) error {
		if got := m.Show(unit, property); got != want {
			return fmt.Errorf("%s %s: %s is %q", unit, what, property, got)
		}
		return nil
	}))
}
