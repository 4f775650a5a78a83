// SPDX-License-Identifier: Apache-2.0

package order

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"

	"funlab.casa/omen/install/unitfile"
	"funlab.casa/omen/internal/config"
)

// A dropIn is one file below the folder that systemd gives.
type dropIn struct{ name, text string }

const head = "# Made by omen-agent-generator from " + config.DefaultPath + ".\n# After a change there: systemctl daemon-reload, then restart omen-agent.service.\n"

// dropIns are those of a plan, for both units.
func (p plan) dropIns() []dropIn {
	all := []dropIn{
		{unitfile.Agent + ".d/50-order.conf", p.order(p.early...)},
		{unitfile.Unseal + ".d/50-order.conf", p.order()},
	}
	for _, one := range []dropIn{
		{unitfile.Agent + ".d/50-sandbox.conf", p.agentSandbox()},
		{unitfile.Unseal + ".d/50-sandbox.conf", p.unsealSandbox()},
		{unitfile.Agent + ".d/60-start.conf", p.startSandbox()},
	} {
		if one.text != "" {
			one.text = head + "[Service]\n" + one.text
			all = append(all, one)
		}
	}
	return all
}

// order is that of all units but some. It has systemd warn when agent.toml is newer
// than what it has read.
func (p plan) order(but ...Early) string {
	var text strings.Builder
	text.WriteString(head + "[Unit]\nSourcePath=" + config.DefaultPath + "\n")
	if p.device != "" {
		device := unit.UnitNamePathEscape(p.device) + ".device"
		if p.awaited {
			fmt.Fprintf(&text, "Wants=%s\n", device)
		}
		fmt.Fprintf(&text, "After=%s\n", device)
	}
	for _, name := range p.before {
		if !slices.ContainsFunc(but, func(e Early) bool { return e.Unit == name }) {
			fmt.Fprintf(&text, "Before=%s\n", name)
		}
	}
	return text.String()
}

func (p plan) agentSandbox() string {
	var text strings.Builder
	text.WriteString(p.deviceNode())
	for _, folder := range p.writable {
		fmt.Fprintf(&text, "ReadWritePaths=%s\n", quoted(folder))
	}
	if p.tmp {
		text.WriteString("PrivateTmp=no\n")
	}
	if p.known {
		text.WriteString("# A process that is no unit's is known by its program.\n" +
			"ProtectProc=default\nCapabilityBoundingSet=CAP_SYS_PTRACE\n")
	}
	if p.signals {
		text.WriteString("# And gets a signal.\nCapabilityBoundingSet=CAP_KILL\n")
	}
	return text.String()
}

// unsealSandbox opens no network: a TPM behind tcp: it cannot ask, and leaves that to
// the agent.
func (p plan) unsealSandbox() string {
	if p.socket == "" {
		return p.deviceNode()
	}
	return fmt.Sprintf("RestrictAddressFamilies=AF_UNIX\nReadWritePaths=%s\n", quoted(p.writable[0]))
}

func (p plan) deviceNode() string {
	if p.device == "" || p.device == defaultDevice {
		return ""
	}
	return fmt.Sprintf("DeviceAllow=%s rw\nBindPaths=-%s\n", p.device, p.device)
}

// startSandbox takes the sandbox away. A service that the agent starts keeps for its life
// what the agent had, and what it needs nobody here knows. It cannot be started as a unit
// of systemd's instead, as a reload command is: what is found running is started again
// with its own environment, folder, user and output.
func (p plan) startSandbox() string {
	if !p.starts {
		return ""
	}
	return "# start: what it starts has no sandbox. With unit there is one.\n" + open +
		"# What was started here does not end with the agent.\nKillMode=process\n"
}

const open = `BindPaths=
CapabilityBoundingSet=~
DeviceAllow=
DevicePolicy=auto
LockPersonality=no
MemoryDenyWriteExecute=no
NoNewPrivileges=no
PrivateDevices=no
PrivateIPC=no
PrivateMounts=no
PrivateTmp=no
ProtectClock=no
ProtectControlGroups=no
ProtectHome=no
ProtectHostname=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectProc=default
ProtectSystem=no
ReadOnlyPaths=
ReadWritePaths=
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
SystemCallArchitectures=
SystemCallFilter=
UMask=0022
`
