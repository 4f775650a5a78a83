// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/rundir"
)

// hostPolicy begins the name of the policy that lets a host have its names signed.
const hostPolicy = "omen-host-"

// Filled is what became of a token for another program.
type Filled struct {
	Host  string    `json:"host"` // the server's name for this host
	Role  string    `json:"role"`
	File  string    `json:"file"`
	Until time.Time `json:"until"`

	TTL time.Duration `json:"-"` // of the token, from the login on
}

// Sinks are the tokens that are configured.
func (a *Agent) Sinks() []config.Sink { return slices.Clone(a.config.Sinks) }

// Origin says where tokens come from: what is got from another place is another token.
func (a *Agent) Origin() string {
	c := a.config.OpenBao
	return fmt.Sprintf("%q", append(slices.Clone(c.Addresses), c.CAFile, c.TLSServerName, c.Namespace, c.AuthPath))
}

// DropSinks removes the tokens that were written for sinks that are not configured any
// more. They end by themselves; one that cannot be removed is tried again the next time.
func (a *Agent) DropSinks() {
	all := a.recallSinks()
	known := len(all)
	for file, s := range all {
		if slices.ContainsFunc(a.config.Sinks, func(s config.Sink) bool { return s.File == file }) {
			continue
		}
		if err := a.dropToken(s); err != nil {
			a.log.Warn("the token of a sink that is configured no more is not removed", "file", file, "error", err)
			continue
		}
		delete(all, file)
	}
	if len(all) < known {
		a.keepSinks(all)
	}
}

// dropToken removes what was written for a sink: a file that nothing was written to is
// another's.
func (a *Agent) dropToken(s SinkStatus) error {
	if s.Until.IsZero() {
		return nil
	}
	if err := rundir.RemoveSecret(a.root(), s.File); err != nil {
		return err
	}
	a.log.Info("sink is configured no more, its token is removed", "file", s.File)
	return nil
}

func (a *Agent) keepSinks(all map[string]SinkStatus) {
	if err := a.keep(sinksName, all); err != nil {
		a.log.Warn("the state of sinks is not written", "error", err)
	}
}

// FillSink proves this host, and puts a token where another program reads it. The one
// that was there ends by itself: a batch token cannot be taken back. On an error the
// file is as it was. Every error is a [*StepError].
func (a *Agent) FillSink(ctx context.Context, sink config.Sink) (*Filled, error) {
	began := a.now()
	session, err := a.Login(ctx, sink.Role)
	if err == nil {
		err = at(StepInstall, "", a.hand(session, sink))
	}
	var filled *Filled
	if err == nil {
		filled = &Filled{Host: session.Host, Role: sink.Role, File: sink.File, TTL: session.TTL, Until: began.Add(session.TTL).UTC()}
	}
	a.rememberSink(sink, filled, err)
	return filled, err
}

// hand writes a token to its file. One that signs this host's certificates goes to
// nobody.
func (a *Agent) hand(session *bao.Session, sink config.Sink) error {
	if slices.Contains(session.Policies, hostPolicy+session.Host) {
		return remedy.Errorf("bao write auth/tpm/role/"+sink.Role+" host_policy=false: a token for other programs signs no certificate of this host",
			"tokens of role %s have the policy %s", sink.Role, hostPolicy+session.Host)
	}
	owner := account.Account{UID: os.Geteuid(), GID: os.Getegid()}
	if sink.Owner != "" {
		var err error
		if owner, err = a.accounts().Find(sink.Owner); err != nil {
			return remedy.Errorf("make the user, or correct owner in [[sink]]", "owner of %s: %w", sink.File, err)
		}
	}
	token := append(session.Token.Reveal(), '\n')
	defer clear(token)
	return rundir.WriteSecret(a.root(), sink.File, owner.UID, owner.GID, token)
}

func (a *Agent) root() string {
	if a.install == nil || a.install.Root == "" {
		return "/"
	}
	return a.install.Root
}

// sinksName is the file of what became of tokens, in the state folder: for people.
const sinksName = "sinks.json"

// SinkStatus is a configured sink as it stands.
type SinkStatus struct {
	Role    string    `json:"role"`
	File    string    `json:"file"`
	Until   time.Time `json:"until,omitzero"`    // zero: none was written yet
	Gone    bool      `json:"gone,omitempty"`    // the file is not there
	Failure *Failure  `json:"failure,omitempty"` // of the last attempt
}

// rememberSink writes down what became of one attempt, of configured sinks only. It does
// not fail for that.
func (a *Agent) rememberSink(sink config.Sink, filled *Filled, err error) {
	if !slices.Contains(a.config.Sinks, sink) {
		return
	}
	all := a.recallSinks()
	s := all[sink.File]
	s.Role, s.File, s.Failure = sink.Role, sink.File, nil
	if err != nil {
		s.Failure = a.failure(err)
	} else {
		s.Until = filled.Until
	}
	all[sink.File] = s
	a.keepSinks(all)
}

func (a *Agent) recallSinks() map[string]SinkStatus {
	all := map[string]SinkStatus{}
	text, err := readSmall(filepath.Join(a.state, sinksName))
	if err != nil || json.Unmarshal(text, &all) != nil || all == nil {
		return map[string]SinkStatus{}
	}
	return all
}

// describeSinks tells of each configured sink until when its token is good.
func (a *Agent) describeSinks() []SinkStatus {
	var list []SinkStatus
	known := a.recallSinks()
	for _, sink := range a.config.Sinks {
		s := known[sink.File]
		if s.Role != sink.Role {
			s = SinkStatus{}
		}
		s.Role, s.File = sink.Role, sink.File
		_, err := os.Lstat(filepath.Join(a.root(), sink.File))
		s.Gone = errors.Is(err, fs.ErrNotExist)
		list = append(list, s)
	}
	return list
}
