// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/semaphore"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// stateFolder is where the agent keeps its record of the TPM and its status,
// below install.DefaultStateDir.
const stateFolder = "state"

// maxFile bounds the small files that the configuration names, in bytes.
const maxFile = 64 << 10

// Agent does the job of one host. It is made once and renews many times, one
// renewal at a time. Login, FillSink and what WorkloadAPI gives may be used beside it.
type Agent struct {
	Observer Observer           // hears of renewals and looks; nil: nobody does
	Progress func(Step)         // hears of a renewal's steps as they begin; nil: nobody does
	Hint     func(error) string // the remedy of an error, for the record; nil: what the error brings itself

	config  *config.Config
	tpm     host.Config
	bao     *bao.Client
	clients []*x509.Certificate            // roots of [keylime] client_ca
	anchors map[string][]*x509.Certificate // by file
	install *install.Installer
	state   string // folder
	log     *slog.Logger
	now     func() time.Time

	memory
	applied  *applied // what the last renewal was made from; nil: not read yet
	needs    []need   // what the last look found
	soon     bool     // what it found has to be looked at again before long
	switched func()   // see OnSwitch; nil for none
}

// New makes the agent of a checked configuration. It reads the files that the
// configuration names, and touches neither TPM nor network. Its errors are of
// the configuration: *config.Error.
func New(c *config.Config, log *slog.Logger) (*Agent, error) {
	a := &Agent{
		config:  c,
		install: &install.Installer{Log: log},
		state:   filepath.Join(install.DefaultStateDir, stateFolder),
		log:     log,
		now:     time.Now,
		memory:  memory{turn: semaphore.NewWeighted(1)},
	}
	var err error
	if a.tpm, err = hostConfig(c.TPM); err != nil {
		return nil, err
	}
	a.tpm.StateDir = a.state
	a.install.Sign, a.install.Open = a.signResident, a.openSealed
	if err := a.readTrust(); err != nil {
		return nil, err
	}
	if a.bao, err = openBao(c.OpenBao); err != nil {
		return nil, err
	}
	return a, nil
}

func openBao(c config.OpenBao) (*bao.Client, error) {
	client, err := bao.New(bao.Config{
		Addresses: c.Addresses, CAFile: c.CAFile, Namespace: c.Namespace, TLSServerName: c.TLSServerName, AuthPath: c.AuthPath,
	})
	if err != nil {
		return nil, &config.Error{File: c.CAFile, Err: err, Hint: "correct the [openbao] table"}
	}
	return client, nil
}

func authValue(file string) (value host.AuthValue, err error) {
	if file == "" {
		return value, nil
	}
	text, err := readSmall(file)
	if err == nil {
		value, err = host.NewAuthValue(bytes.TrimRight(text, "\n"))
	}
	if err != nil {
		err = &config.Error{File: file, Err: err, Hint: "the file holds the authorisation value and nothing else, at most 64 bytes"}
	}
	return value, err
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("larger than %d KiB", maxFile>>10)
	}
	return b, err
}

// order is one certificate on its way from configuration to file.
type order struct {
	cert    *config.Certificate
	request issuer.Request
	mode    issuer.Mode
	key     *issuer.Key
	why     string // where auto is configured: why this mode
	sealed  []byte // what the key comes back from after a reboot
	issued  *issuer.Issued
}

// orders lists the certificates to renew: those named, or all.
func (a *Agent) orders(only []string) ([]*order, error) {
	wanted := map[string]bool{}
	for _, name := range only {
		wanted[name] = true
	}
	var orders []*order
	for i := range a.config.Certificates {
		c := &a.config.Certificates[i]
		if len(only) > 0 && !wanted[c.Name] {
			continue
		}
		delete(wanted, c.Name)
		if c.Usage() == config.Root {
			continue // nothing is issued
		}
		orders = append(orders, &order{cert: c, request: request(c), mode: issuer.Mode(c.Key)})
	}
	for name := range wanted {
		return nil, &config.Error{File: "--certificate", Err: fmt.Errorf("no certificate %q", name), Hint: "name one of the [[certificate]] tables"}
	}
	return orders, nil
}

func request(c *config.Certificate) issuer.Request {
	usage := issuer.ServerAuth
	if c.Usage() == config.Client {
		usage = issuer.ClientAuth
	}
	return issuer.Request{
		Name: c.Name, CommonName: c.CommonName, DNS: c.DNS, IP: c.IP, URI: c.URI,
		Usage: usage, TTL: c.TTL.Duration,
	}
}

// Refused reports whether err is a final no of the server, which only an
// operator can change.
func Refused(err error) bool {
	var e *bao.Error
	return errors.As(err, &e) && !e.Retryable() && !e.StartOver()
}
