// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
)

const configPath = config.DefaultPath

// cli is the command line: commands, flags and their help, from which manual
// pages and completions are made too.
type cli struct {
	Config    string `help:"Configuration file." default:"${config}" placeholder:"FILE"`
	Output    string `help:"Form of what is printed: text or json." enum:"text,json" default:"text"`
	LogLevel  string `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
	LogFormat string `help:"Form of the log on standard error: text, json, journal, or auto, which is the journal's where systemd has it there." enum:"auto,text,json,journal" default:"auto"`

	Renew     renewCommand     `cmd:"" help:"Renew now: prove this host, have its keys signed, install, restart, prove what is served."`
	Run       runCommand       `cmd:"" help:"Renew whenever it is due, until stopped."`
	Status    statusCommand    `cmd:"" help:"Show what is installed, until when, and the last and next renewal."`
	Doctor    doctorCommand    `cmd:"" help:"Look for everything that keeps certificates from being renewed, each with its remedy."`
	Verify    verifyCommand    `cmd:"" help:"Probe every configured service now: is what is installed what is served?"`
	Unseal    unsealCommand    `cmd:"" help:"Put sealed keys where the services read them; at boot, no network."`
	Announce  announceCommand  `cmd:"" help:"Announce PCR values of a planned change, and renew: the keys come back in that state too."`
	Rollback  rollbackCommand  `cmd:"" help:"Go back to the generation before: restart, prove what is served."`
	Uninstall uninstallCommand `cmd:"" help:"Put folder, configuration and services back as they were found."`
	Forget    forgetCommand    `cmd:"" help:"Take our key in the TPM, and our state, off this host. After uninstall."`
	Login     loginCommand     `cmd:"" help:"Log in once: who is this host to OpenBao; or a token for another program."`
	Identity  identityCommand  `cmd:"" help:"Show what an operator needs to enrol this host."`
	Conf      configCommand    `cmd:"" name:"config" help:"Look at the configuration."`
	Version   versionCommand   `cmd:"" help:"Show the version."`

	Manual     manualCommand     `cmd:"" hidden:"" help:"Print the manual page."`
	Completion completionCommand `cmd:"" hidden:"" help:"Print the completion for a shell."`
}

// job is what every command needs to do its work.
type job struct {
	ctx    context.Context
	cli    *cli
	stdin  io.Reader
	stdout io.Writer
	log    *slog.Logger
	bottom *bottomLine // of standard error; nil where that is no terminal
}

func (c *cli) job(ctx context.Context, stdout, stderr io.Writer) *job {
	j := &job{ctx: ctx, cli: c, stdin: os.Stdin, stdout: stdout}
	if isTerminal(stderr) {
		j.bottom = &bottomLine{out: stderr}
		stderr = j.bottom
	}
	j.log = slog.New(c.handler(stderr))
	return j
}

// agent reads the configuration and makes the agent that does the work.
func (j *job) agent() (*agent.Agent, error) {
	c, err := config.Load(j.cli.Config)
	if err != nil {
		return nil, err
	}
	a, err := agent.New(c, j.log)
	if err == nil {
		a.Hint = hint
	}
	return a, err
}

type renewCommand struct {
	Certificate []string `help:"Renew this certificate only and carry the others over; may be given several times." placeholder:"NAME"`
	TicketFile  string   `help:"Enrol this host with the wrapped ticket in this file, - for standard input. The file is removed when it is spent." placeholder:"FILE"`
}

// Run renews once.
func (r *renewCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	var ticket *agent.TicketFile
	if r.TicketFile != "" {
		if ticket, err = agent.ReadTicketFile(r.TicketFile, j.stdin); err != nil {
			return err
		}
	}
	end := j.progress(a)
	outcome, err := a.Enrol(j.ctx, r.Certificate, ticket)
	if end(); err != nil {
		return err
	}
	return show(j, outcome, outcomeText)
}

type statusCommand struct{}

// Run shows the state of this host.
func (*statusCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	status, err := a.Status()
	if err != nil {
		return err
	}
	return show(j, status, func(w io.Writer, s *agent.Status) {
		statusText(page{w: w, colour: coloured(j.stdout)}, s, time.Now())
	})
}

type verifyCommand struct{}

// Run probes what is served. The findings are printed whether or not they are
// good; the error says that one is not.
func (*verifyCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	found, failed := a.Verify(j.ctx)
	if err := show(j, findings(found), findingsText); err != nil {
		return err
	}
	return failed
}

type identityCommand struct {
	Bank string `help:"Bank of the PCRs: sha256 or sha384." enum:"sha256,sha384" default:"sha256"`
	PCRs []int  `name:"pcrs" help:"PCRs to show and to digest, as the role asks for them." default:"0,1,2,3,4,5,6,7" placeholder:"N,..."`
}

// Run shows what the TPM is. It needs no more of the configuration than [tpm],
// and works before there is one.
func (i *identityCommand) Run(j *job) error {
	c, err := config.LoadTPM(j.cli.Config)
	if err != nil {
		return err
	}
	identity, err := agent.Identify(j.ctx, c, attest.Selection{Bank: i.Bank, PCRs: i.PCRs})
	if err != nil {
		return err
	}
	return show(j, identity, identityText)
}

type configCommand struct {
	Check checkCommand `cmd:"" help:"Check the configuration and say what is wrong with file, line and remedy."`
}

type checkCommand struct{}

// Run checks the configuration and changes nothing.
func (*checkCommand) Run(j *job) error {
	c, err := config.Load(j.cli.Config)
	if err != nil {
		return err
	}
	a, err := agent.New(c, j.log)
	if err != nil {
		return err
	}
	fmt.Fprintf(j.stdout, "%s: ok, %d certificates\n", j.cli.Config, len(c.Certificates))
	for _, remark := range a.Remarks() {
		fmt.Fprintf(j.stdout, "remark: %s\n", remark)
	}
	return nil
}

type versionCommand struct{}

// Run shows the version.
func (*versionCommand) Run(j *job) error {
	return show(j, map[string]string{"version": version}, func(w io.Writer, _ map[string]string) {
		fmt.Fprintf(w, "omen-agent %s\n", version)
	})
}
