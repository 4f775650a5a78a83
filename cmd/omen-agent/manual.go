// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/manual"
)

// manualCommand prints the manual page; packages are made with it.
type manualCommand struct {
	Date string `help:"Date of the page, YYYY-MM-DD." required:""`
}

// Run prints it.
func (m *manualCommand) Run(j *job, app *kong.Kong) error {
	date, err := time.Parse(time.DateOnly, m.Date)
	if err != nil {
		return usageError(err)
	}
	_, err = io.WriteString(j.stdout, manual.Page(app.Model, about(date)))
	return err
}

// completionCommand prints the completion for a shell; packages are made with it.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints it.
func (c *completionCommand) Run(j *job, app *kong.Kong) error {
	shell := map[string]func(*kong.Application) string{"bash": manual.Bash, "zsh": manual.Zsh, "fish": manual.Fish}[c.Shell]
	_, err := io.WriteString(j.stdout, shell(app.Model))
	return err
}

// about is what the page says beside commands and flags.
func about(date time.Time) manual.About {
	return manual.About{
		Date: date, Version: version, Summary: "keep this host's certificates by TPM attestation",
		Description: `omen-agent proves this host's TPM to OpenBao, gets a token for minutes, has keys signed that never leave the host,
installs the certificates for Keylime or any other service, restarts what reads them, and proves what is served. What is not
served goes back.

As a service it is omen-agent.service, and at boot omen-agent-unseal.service. Errors are one line with the step and the cause,
and one with the remedy.`,
		Exits: exitEntries(),
		Files: []manual.Entry{
			{Name: config.DefaultPath, Text: "The configuration, agent.toml(5). After a change of units, folders or device: systemctl daemon-reload, then restart omen-agent.service."},
			{Name: "/var/lib/omen-agent", Text: "The sets, and what is known of the TPM."},
			{Name: "/run/omen-agent", Text: "Plain keys of those that are sealed, in memory."},
		},
		SeeAlso: []string{"agent.toml(5)", "systemd.service(5)", "systemd.generator(7)"},
	}
}

func exitEntries() []manual.Entry {
	var entries []manual.Entry
	for code, text := range []string{
		0: "Done.", exitOther: "Something else.", exitUsage: "Command line or configuration.", exitRefused: "The server said no.",
		exitUnreachable: "The server could not be asked.", exitTPM: "The TPM.", exitIssuing: "Issuing: the signing, or the judgement of what was signed.",
		exitInstall: "Installation.", exitProbe: "The new set was not served, and was taken back; or verify found that one is not served.",
	} {
		entries = append(entries, manual.Entry{Name: strconv.Itoa(code), Text: text})
	}
	return entries
}
