// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/x509"
	"log/slog"
	"path/filepath"
	"sync"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
)

// patient is the host that is looked at, with what several checks ask of it. Each of
// these is asked once.
type patient struct {
	path, root string
	hint       func(error) string
	config     *config.Config // as far as it is sound
	faults     []error        // of it
	agent      *agent.Agent
	fileFaults []error // of the files that it names

	tpm    once[tpmLook]
	ek     once[ekLook]
	health once[[]bao.Health]
	login  once[login]
	survey once[[]agent.Surveyed]
	units  once[ownUnits]

	askUnits func(ctx context.Context, names []string) ([]service.State, error)
}

// login is a dry run.
type login struct {
	session *bao.Session
	id      attest.TPMID
	err     error
}

func (d Doctor) newPatient() *patient {
	log := d.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &patient{path: d.Config, root: d.Root, hint: d.Hint, askUnits: d.units}
	if p.askUnits == nil {
		p.askUnits = service.States
	}
	if p.hint == nil {
		p.hint = func(error) string { return "" }
	}
	p.config, p.faults = config.Sound(d.Config)
	p.agent, p.fileFaults = agent.Examine(p.config, d.Root, log)
	return p
}

func (p *patient) close() {
	if client := p.agent.OpenBao(); client != nil {
		client.Close()
	}
}

// under is where a file of the host is.
func (p *patient) under(path string) string { return filepath.Join(p.root, path) }

// loggedIn logs in, once.
func (p *patient) loggedIn(ctx context.Context) login {
	return p.login.get(func() (l login) {
		l.session, l.id, l.err = p.agent.TryLogin(ctx)
		return l
	})
}

func (p *patient) surveyed(ctx context.Context) []agent.Surveyed {
	return p.survey.get(func() []agent.Surveyed { return p.agent.Survey(ctx) })
}

func (p *patient) healths(ctx context.Context) []bao.Health {
	return p.health.get(func() []bao.Health {
		if p.agent.OpenBao() == nil {
			return nil
		}
		return p.agent.OpenBao().Health(ctx)
	})
}

// certificate finds a configured one.
func (p *patient) certificate(name string) *config.Certificate {
	for i := range p.config.Certificates {
		if p.config.Certificates[i].Name == name {
			return &p.config.Certificates[i]
		}
	}
	return nil
}

// anchors are the roots in a file; none where it cannot be read, which is told of the
// configuration.
func (p *patient) anchors(file string) []*x509.Certificate { return p.agent.Anchors(file) }

// once keeps what was asked first. A check that was left behind may still be asking.
type once[T any] struct {
	mu    sync.Mutex
	known bool
	value T
}

func (o *once[T]) get(ask func() T) T {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.known {
		o.value, o.known = ask(), true
	}
	return o.value
}
