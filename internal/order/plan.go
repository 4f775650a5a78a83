// SPDX-License-Identifier: Apache-2.0

package order

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/internal/config"
)

// plan is what agent.toml asks of the two units.
type plan struct {
	before   []string // units that read the certificates
	early    []Early  // those of them that cannot wait for the agent
	writable []string // folders that the agent writes in
	device   string   // node of the TPM, "" for a socket
	awaited  bool     // the node is not there yet
	socket   string   // of a software TPM, in the file system
	tmp      bool     // something of the TPM lies in /tmp
	known    bool     // a process is known by its program that is no unit's
	signals  bool     // and it is signalled
	starts   bool     // commands are run that become services
}

// runFolder is RuntimeDirectory= of the units. Of the rest of /run, which is empty when
// the generator runs, they can write only folders that are there by then.
const runFolder = "/run/omen-agent"

// defaultDevice is what the units as shipped leave open.
const defaultDevice = "/dev/tpmrm0"

// planner makes a plan and collects what it could not use.
type planner struct {
	plan
	there func(path string) bool
	errs  []error
}

// makePlan reads the plan out of a configuration in which nothing is checked. What
// cannot be used is left out, and said in the error.
func makePlan(c *config.Config, there func(path string) bool) (plan, error) {
	p := planner{there: there}
	p.tpm(c.TPM.Device)
	for i := range c.Certificates {
		p.certificate(&c.Certificates[i])
	}
	if c.Metrics.Textfile != "" {
		p.beside(c.Metrics.Textfile)
	}
	for _, sink := range c.Sinks {
		p.beside(sink.File)
	}
	if c.WorkloadAPI.Socket != "" {
		p.beside(c.WorkloadAPI.Socket)
	}
	return p.plan, errors.Join(p.errs...)
}

func (p *planner) tpm(device string) {
	if socket, found := strings.CutPrefix(device, "unix:"); found {
		if p.beside(socket) { // the lock
			p.socket, p.tmp = socket, inTmp(socket)
		}
		return
	}
	if strings.HasPrefix(device, "tcp:") {
		p.tmp = true // the lock
		return
	}
	if !node.MatchString(device) {
		p.errs = append(p.errs, fmt.Errorf("device %q", device))
		return
	}
	p.device, p.awaited = device, !p.there(device)
}

func inTmp(name string) bool {
	return strings.HasPrefix(name, "/tmp/") || strings.HasPrefix(name, "/var/tmp/")
}

func (p *planner) certificate(c *config.Certificate) {
	for _, unit := range unitsOf(c) {
		if err := checkUnit(unit); err != nil {
			p.errs = append(p.errs, err)
		} else if !slices.Contains(p.before, unit) {
			p.before = append(p.before, unit)
		}
	}
	switch {
	case c.Profile != config.General:
		p.beside(keylime.CertsDir)
	case c.Files.Folder != "":
		p.beside(c.Files.Folder)
	}
	for _, bundle := range []string{c.BundleFile, c.SPIFFEBundleFile} {
		if bundle != "" {
			p.beside(bundle)
		}
	}
	p.process(&c.Service)
}

// process notes what becomes of processes that are no unit's. A reload command needs
// nothing: systemd runs it as a unit of its own.
func (p *planner) process(s *config.Service) {
	p.starts = p.starts || len(s.Start) > 0
	p.signals = p.signals || s.Signal != ""
	p.known = p.known || p.signals || s.Unit == "" && s.PIDFile != "" && len(s.Reload) > 0
}

// unitsOf are the units that read a certificate: the one that is named, or those that
// the profile looks for.
func unitsOf(c *config.Certificate) []string {
	if c.Service.Unit != "" {
		return []string{c.Service.Unit}
	}
	profile, _ := keylime.Find(c.Profile)
	if service, found := keylime.Find(profile.Service); found {
		return service.Units
	}
	return nil
}

// beside notes the folder of a path as one that the agent writes in, or, where that is
// missing and will be made, the one above it. The root of all it does not open.
func (p *planner) beside(name string) bool {
	err := checkPath(name)
	folder := path.Dir(name)
	if folder == runFolder {
		return true // it is the unit's own
	}
	if err == nil && !p.there(folder) {
		folder = path.Dir(folder)
	}
	if err == nil && (folder == "/" || folder == path.Dir(runFolder)) {
		err = fmt.Errorf("the folder of path %q is not there", name)
	}
	if err != nil {
		p.errs = append(p.errs, err)
		return false
	}
	if !slices.Contains(p.writable, folder) {
		p.writable = append(p.writable, folder)
	}
	return true
}
