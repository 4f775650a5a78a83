// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"net"
	"os"
	"path"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/unitfile"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/rundir"
)

// besideChecks are of what omen-agent run does for other programs. None of it stops a
// renewal.
func besideChecks() []Check {
	return []Check{
		{
			Name: "metrics-textfile", Area: AreaInstall, run: checkTextfile,
			Asks:   "the folder of `textfile` in `[metrics]` is there, without a link on the way, may be written, and is the one that node_exporter reads; the file is fresh",
			Remedy: "textfile in [metrics] names a file in the folder that node_exporter reads; after a change: " + afterChange,
		},
		{
			Name: "sinks", Area: AreaInstall, root: true, run: checkSinks,
			Asks:   "each `[[sink]]` has a token that is not over; its folder is root's and in memory, its owner is a user who gets there",
			Remedy: "omen-agent status says what became of the last attempt; docs/interplay.md, A token for bao agent",
		},
		{
			Name: "workload-api", Area: AreaService, root: true, run: checkWorkloadAPI,
			Asks:   "the socket of `[workload_api]` is served, in a folder of root's that its users get to; they are users of this host, and there is a certificate to hand out",
			Remedy: "omen-agent run serves it: systemctl status " + unitfile.Agent + "; docs/interplay.md, SPIFFE",
		},
	}
}

// afterChange has a unit's sandbox and its process follow agent.toml.
const afterChange = "systemctl daemon-reload && systemctl restart " + unitfile.Agent

// accounts are the users of the host.
func (p *patient) accounts() account.Book {
	if p.root == "" {
		return account.Of("/")
	}
	return account.Of(p.root)
}

// hostRoot is where the host's files are.
func (p *patient) hostRoot() string { return p.under("/") }

func checkSinks(_ context.Context, p *patient) []Result {
	if len(p.config.Sinks) == 0 {
		return notApplicable("agent.toml has no [[sink]]")
	}
	status, err := p.agent.Status()
	if err != nil {
		return p.failed("", err)
	}
	return eachOf(p.config.Sinks, "", func(sink config.Sink) []Result {
		if found := p.badPlace(sink); found != nil {
			return found
		}
		for _, s := range status.Sinks {
			if s.File == sink.File {
				return token(s, time.Now())
			}
		}
		return nil
	})
}

// badPlace is why a token cannot be written, or not be read; nil where it can.
func (p *patient) badPlace(sink config.Sink) []Result {
	folder := path.Dir(sink.File)
	if err := rundir.Look(p.hostRoot(), folder, true); err != nil {
		return problem(sink.File, hintOr(err, "mkdir -m 0711 "+folder), "%v", err)
	}
	if sink.Owner == "" {
		return nil
	}
	if _, err := p.accounts().Find(sink.Owner); err != nil {
		return problem(sink.File, "make the user, or correct owner in [[sink]]", "its owner: %v", err)
	}
	if _, err := os.Stat(p.under(folder)); err == nil && !passable(p.under(folder)) {
		return warning(sink.File, "chmod o+x "+folder+", and what is above it", "its owner %s may not pass the folder", sink.Owner)
	}
	return nil
}

// hintOr is the remedy that an error carries, or another.
func hintOr(err error, other string) string {
	if hint := remedy.Of(err); hint != "" {
		return hint
	}
	return other
}

// token judges what is on record of a sink. The token itself is not read.
func token(s agent.SinkStatus, now time.Time) []Result {
	byHand := "omen-agent run writes it (systemctl status " + unitfile.Agent + "); once, by hand: omen-agent login --role " + s.Role + " --sink " + s.File
	switch {
	case s.Failure != nil && now.After(s.Until):
		return problem(s.File, "", "role %s, there is no token that is good: %s", s.Role, s.Failure.Message)
	case s.Failure != nil:
		return warning(s.File, "", "role %s, good until %s, and the last attempt failed: %s", s.Role, s.Until.Format(time.RFC3339), s.Failure.Message)
	case s.Until.IsZero():
		return warning(s.File, byHand, "role %s, none was written yet", s.Role)
	case s.Gone:
		return problem(s.File, byHand, "role %s, somebody took the file away", s.Role)
	case now.After(s.Until):
		return problem(s.File, byHand, "role %s, the token ended %s, and was not replaced", s.Role, s.Until.Format(time.RFC3339))
	}
	return ok(s.File, "role %s, good until %s", s.Role, s.Until.Format(time.RFC3339))
}

func checkWorkloadAPI(ctx context.Context, p *patient) []Result {
	w := p.config.WorkloadAPI
	if !w.On() {
		return notApplicable("agent.toml has no [workload_api]")
	}
	folder := path.Dir(w.Socket)
	if err := rundir.Look(p.hostRoot(), folder, false); err != nil {
		return problem(w.Socket, hintOr(err, "mkdir -m 0711 "+folder), "%v", err)
	}
	results := p.nobodies(w.Users)
	if _, err := os.Stat(p.under(folder)); err == nil && !passable(p.under(folder)) {
		results = append(results, warning(w.Socket, "chmod o+x "+folder+", and what is above it", "its users may not pass the folder")...)
	}
	results = append(results, p.handedOut()...)
	connection, err := new(net.Dialer).DialContext(ctx, "unix", p.under(w.Socket))
	if err != nil {
		return append(results, problem(w.Socket, "", "nobody serves it: %v", cause(err))...)
	}
	connection.Close()
	if len(results) == 0 {
		return ok(w.Socket, "served")
	}
	return results
}

// cause is an error of the network without the address, which is told.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// nobodies are names in users that are nobody's here.
func (p *patient) nobodies(users []config.User) []Result {
	var results []Result
	for _, user := range users {
		if _, number := user.Number(); number {
			continue
		}
		if _, err := p.accounts().Find(string(user)); err != nil {
			results = append(results, warning(string(user), "correct users in [workload_api]; of a name that only a directory service knows give the number", "it is no user of this host, and gets nothing")...)
		}
	}
	return results
}

// handedOut asks for the certificate as the socket does.
func (p *patient) handedOut() []Result {
	settings := p.agent.WorkloadAPI()
	if settings == nil {
		return problem("", "correct the [[certificate]] that [workload_api] names", "its certificate is not to be had")
	}
	if _, err := settings.SVID(); err != nil {
		return problem(p.config.WorkloadAPI.Certificate, hintOr(err, "omen-agent renew"), "it cannot be handed out: %v", err)
	}
	return nil
}
