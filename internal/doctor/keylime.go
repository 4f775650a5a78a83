// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
)

func keylimeChecks() []Check {
	return []Check{
		{
			Name: "keylime-settings", Area: AreaInstall, root: true, run: checkSettings,
			Asks:   "nothing decides Keylime's settings instead of us: a later drop-in, a variable, a missing main file, a file that the service cannot read",
			Remedy: "docs/operations.md, What overrides us",
		},
		{
			Name: "keylime-agent-version", Area: AreaInstall, root: true, run: checkAgentVersion,
			Asks:   "Keylime's agent is rust-keylime 0.2.9 or newer: before, every quote fails with an EC key",
			Remedy: "install rust-keylime 0.2.9 or newer; of an agent that no package owns, say so: agent_version in [[certificate]]",
		},
		{
			Name: "keylime-tmpfiles", Area: AreaInstall, run: checkTmpfiles,
			Asks:   "no tmpfiles.d line takes the way to the keys from their readers at the next boot, as Keylime's `Z /etc/keylime 0400` does to a folder in it",
			Remedy: "keep certificates outside that folder: omen-agent's own set is a link, which is left alone. For files.folder choose another place",
		},
	}
}

// hasKeylime reports that a certificate of Keylime is configured.
func (p *patient) hasKeylime() bool { return slices.ContainsFunc(p.config.Certificates, isKeylime) }

// ofServices is a check of every service of the configuration.
func (p *patient) ofServices(ctx context.Context, none string, check func(install.Surveyed) []Result) []Result {
	var all []install.Surveyed
	for _, s := range p.surveyed(ctx) {
		all = append(all, s.Survey.Services...)
	}
	return eachOf(all, none, check)
}

func checkSettings(ctx context.Context, p *patient) []Result {
	if !p.hasKeylime() {
		return notApplicable("no component of Keylime is configured")
	}
	results := eachOf(p.surveyed(ctx), "", func(s agent.Surveyed) []Result {
		var results []Result
		for _, err := range s.Survey.Errs {
			results = append(results, p.failed(s.Set, err)...)
		}
		for _, f := range s.Survey.Settings {
			found := p.failed(f.Path, f.Err)
			if !f.Stops {
				found[0].Status = Warning
			}
			results = append(results, found...)
		}
		return results
	})
	if results[0].Status == NotApplicable {
		return ok("", "nothing overrides ours")
	}
	return results
}

func checkAgentVersion(ctx context.Context, p *patient) []Result {
	return p.ofServices(ctx, "Keylime's agent is not configured", func(s install.Surveyed) []Result {
		switch {
		case s.Profile != keylime.Agent || s.Missing != nil:
			return nil
		case s.Version != nil && !errors.Is(s.Version, keylime.ErrOldAgent):
			return p.failed(s.Service, s.Version)
		case s.Version != nil && p.isSwitched(ctx, s.Certificate):
			return warning(s.Service, p.hint(s.Version), "%v; it has an EC certificate already", s.Version)
		case s.Version != nil:
			return p.failed(s.Service, s.Version)
		}
		return ok(s.Service, "attests with EC keys")
	})
}

// isSwitched reports that a certificate of ours is installed, which was refused if the
// agent could not have used it.
func (p *patient) isSwitched(ctx context.Context, certificate string) bool {
	for _, s := range p.surveyed(ctx) {
		for _, c := range s.Certificates {
			if c.Name == certificate && c.Missing == nil {
				return true
			}
		}
	}
	return false
}

// tmpfilesFolders are where systemd-tmpfiles reads, the first counts (tmpfiles.d(5)).
var tmpfilesFolders = []string{"/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"}

// maxTmpfiles bounds one file of tmpfiles.d, in bytes.
const maxTmpfiles = 256 << 10

// recursive is a line that sets modes of all that is below a folder.
type recursive struct{ file, folder, mode string }

// tmpfiles is what systemd-tmpfiles would do to modes.
type tmpfiles struct {
	closing []recursive     // lines of type Z whose mode leaves folders without x
	mended  map[string]bool // folders that a line of their own opens again
}

// checkTmpfiles looks for lines that would take the x off a folder in which, or below
// which, services read keys.
func checkTmpfiles(_ context.Context, p *patient) []Result {
	folders := p.keyFolders()
	if len(folders) == 0 {
		return notApplicable("agent.toml has no certificate")
	}
	lines := p.readTmpfiles()
	var results []Result
	for _, line := range lines.closing {
		for _, folder := range folders {
			if strings.HasPrefix(folder+"/", line.folder+"/") && !lines.mended[folder] {
				results = append(results, problem(folder, "", "%s sets mode %s below %s: nobody but root could pass it after a boot", line.file, line.mode, line.folder)...)
			}
		}
	}
	if len(results) == 0 {
		return ok("", "no line of tmpfiles.d takes the way to %s", strings.Join(folders, ", "))
	}
	return results
}

// keyFolders are the folders on the way to the keys that are there as such. A link is
// not touched.
func (p *patient) keyFolders() []string {
	if len(p.config.Certificates) == 0 {
		return nil
	}
	folders := []string{install.DefaultStateDir, path.Join(install.DefaultStateDir, install.KeylimeSet.Name)}
	for i := range p.config.Certificates {
		c := &p.config.Certificates[i]
		link := keylime.CertsDir
		if c.Profile == config.General {
			link = c.Files.Folder
			folders = append(folders, path.Dir(link))
		}
		if info, err := os.Lstat(p.under(link)); err == nil && info.IsDir() {
			folders = append(folders, link)
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// readTmpfiles reads the lines that matter here. What cannot be read counts for
// nothing: systemd-tmpfiles runs as root too.
func (p *patient) readTmpfiles() tmpfiles {
	seen := map[string]bool{}
	all := tmpfiles{mended: map[string]bool{}}
	for _, folder := range tmpfilesFolders {
		entries, err := os.ReadDir(p.under(folder))
		if err != nil {
			continue
		}
		for _, entry := range entries {
			name := entry.Name()
			if !strings.HasSuffix(name, ".conf") || seen[name] {
				continue
			}
			seen[name] = true
			if text, err := readBounded(p.under(path.Join(folder, name)), maxTmpfiles); err == nil {
				all.read(path.Join(folder, name), text)
			}
		}
	}
	return all
}

func (t *tmpfiles) read(file string, text []byte) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		kind, folder, mode := fields[0][:1], path.Clean(fields[1]), fields[2]
		// "~" only takes away what is not there anyway: a folder keeps its x.
		keeps := mode == "-" || strings.Contains(mode, "~") || hasPass(mode)
		switch {
		case kind == "Z" && !keeps:
			t.closing = append(t.closing, recursive{file, folder, mode})
		case kind == "z" && hasPass(mode):
			t.mended[folder] = true
		}
	}
}

// hasPass reports that a mode lets a folder be passed by its owner.
func hasPass(mode string) bool {
	digits := mode[max(0, len(mode)-3):]
	return len(digits) == 3 && strings.Contains("1357", digits[:1])
}
