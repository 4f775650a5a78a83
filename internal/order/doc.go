// SPDX-License-Identifier: Apache-2.0

// Package order tells systemd what agent.toml says: before which units the agent and
// the unsealing come, and what of the host their sandbox has to leave open for it. It
// is the generator omen-agent-generator (systemd.generator(7)), which systemd runs at
// boot and at each daemon-reload, before any unit and before file systems are mounted.
//
// It reads agent.toml and unit files, looks which folders are there, and writes drop-ins
// into the folder that systemd gives it. It never reads another file, starts nothing,
// waits for nothing, and never keeps the system from booting: what it cannot use it
// leaves out and says so in the kernel's log. No text of agent.toml gets into a unit but names of
// units and paths that were looked at byte for byte.
package order
