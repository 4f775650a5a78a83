// SPDX-License-Identifier: Apache-2.0

// Package service stops and starts the services that read certificates.
//
// Keylime's services read their files once, and die of SIGHUP, some of them in
// part only: so a service is always restarted whole. Where systemd runs and
// knows the unit, it does that (systemd.go speaks D-Bus, and for commands
// transient.go), and what is left of a unit fifteen seconds after TERM gets KILL.
// Elsewhere the service is a process tree: found by its pid file or by who
// listens on its port, ended by TERM to every member, by KILL to what is left
// ten seconds later, and started again in a session of its own.
// Services that can read their files again are reloaded instead: by systemd, by a
// command, or by a signal to the process in a pid file (tell.go, told.go). Where we are
// omen-agent.service, systemd runs the command as a unit of its own, outside of our
// sandbox (transient.go).
// The package never sends HUP to Keylime, never signals by name or by a number it
// has not just checked, never uses a shell and never replaces a log.
package service
