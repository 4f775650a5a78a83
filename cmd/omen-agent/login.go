// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
)

type loginCommand struct {
	Role  string `help:"Role of the auth method; without it that of the sink, or of [openbao]." placeholder:"NAME"`
	Sink  string `help:"Write the token to this file, on a tmpfs, for another program." placeholder:"FILE" xor:"to"`
	Print bool   `help:"Write the token to standard output, which must not be a terminal." xor:"to"`
}

// Help is the command's manual.
func (*loginCommand) Help() string {
	return `Proves this host, and gets a token. Without --sink and --print the token is thrown away: what is shown is who this
host is to OpenBao, and that it gets in.

--sink writes it to a file of mode 0600, in one step, for another program: bao agent with its method token_file, a
script. The file must be on a tmpfs, in a folder of root's. The role must be another than that in [openbao], with
host_policy=false: who reads the file could have this host's names signed. A [[sink]] table of this file gives role and
owner, and omen-agent run keeps it fresh.

--print is for scripts, with --output json beside host and lifetime. It is refused on a terminal, whose history keeps it.`
}

// Run logs in once.
func (l *loginCommand) Run(j *job) error {
	if l.Print && isTerminal(j.stdout) {
		return usageError(errTerminal)
	}
	c, err := config.Load(j.cli.Config)
	if err != nil {
		return err
	}
	if l.Sink != "" {
		return l.fill(j, c)
	}
	a, err := j.agent()
	if err != nil {
		return err
	}
	if l.Role == "" {
		l.Role = c.OpenBao.Role
	}
	session, err := a.Login(j.ctx, l.Role)
	if err != nil {
		return err
	}
	if l.Print && j.cli.Output == "text" {
		_, err := fmt.Fprintf(j.stdout, "%s\n", session.Token.Reveal())
		return err
	}
	return show(j, printed(session, l.Print), loggedInText)
}

// fill writes a token to a file, by its [[sink]] table where there is one.
func (l *loginCommand) fill(j *job, c *config.Config) error {
	sink := config.Sink{File: l.Sink}
	if i := slices.IndexFunc(c.Sinks, func(s config.Sink) bool { return s.File == l.Sink }); i >= 0 {
		sink = c.Sinks[i]
	}
	if l.Role != "" {
		sink.Role = l.Role
	}
	if err := sink.Check(c); err != nil {
		return err
	}
	a, err := j.agent()
	if err != nil {
		return err
	}
	filled, err := a.FillSink(j.ctx, sink)
	if err != nil {
		return err
	}
	return show(j, filled, func(w io.Writer, f *agent.Filled) {
		fmt.Fprintf(w, "host\t%s\nrole\t%s\ntoken in\t%s\tuntil %s\n", f.Host, f.Role, f.File, when(f.Until))
	})
}

// errTerminal keeps a token out of a terminal.
var errTerminal = errors.New("--print: standard output is a terminal")

// loggedIn is what a login gave.
type loggedIn struct {
	Host     string   `json:"host"` // the server's name for this host
	Role     string   `json:"role"`
	EKClass  string   `json:"ek_class"`
	Boot     string   `json:"boot"`
	Policies []string `json:"policies"`
	TTL      int      `json:"ttl"`             // seconds
	Token    string   `json:"token,omitempty"` // where it was asked for
}

// printed is what is shown of a session. With its token it goes where --print says, and
// nowhere else.
func printed(s *bao.Session, token bool) *loggedIn {
	l := &loggedIn{
		Host: s.Host, Role: s.Metadata["role"], EKClass: s.Metadata["ek_class"], Boot: s.Metadata["boot"],
		Policies: s.Policies, TTL: int(s.TTL / time.Second),
	}
	if token {
		l.Token = string(s.Token.Reveal())
	}
	return l
}

func loggedInText(w io.Writer, l *loggedIn) {
	fmt.Fprintf(w, "host\t%s\n", l.Host)
	fmt.Fprintf(w, "role\t%s\n", printable(l.Role))
	fmt.Fprintf(w, "endorsement key\t%s\n", printable(l.EKClass))
	fmt.Fprintf(w, "boot\t%s\n", printable(l.Boot))
	fmt.Fprintf(w, "policies\t%s\n", printable(list(l.Policies)))
	fmt.Fprintf(w, "token\tthrown away; it was good for %s\n", time.Duration(l.TTL)*time.Second)
}

// sinksText shows the tokens that are kept for other programs.
func sinksText(p page, sinks []agent.SinkStatus, now time.Time) {
	for _, s := range sinks {
		state := "until " + when(s.Until)
		if s.Until.Before(now) || s.Gone {
			state = "NO TOKEN"
		}
		p.row("sink", fmt.Sprintf("%s of role %s: %s", s.File, s.Role, state))
		if s.Failure != nil {
			p.row("", "last attempt failed: "+s.Failure.Message)
		}
	}
}
