// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// General is the profile of a program that is none of Keylime's. Its certificate is
// a set of its own: it changes, fails and goes back by itself.
const General = "general"

// Actions, by which a program gets to its new certificate.
const (
	Restart = "restart"
	Reload  = "reload"
	NoAct   = "none" // it watches its files, or reads them each time
)

// Files says in which form and under which names a program of profile general finds
// its certificate, all in one folder.
type Files struct {
	Folder        string `toml:"folder"`        // becomes a link to the current generation
	Certificate   string `toml:"certificate"`   // leaf, then intermediates; also there as <name>.crt
	Key           string `toml:"key"`           // also there as <name>.key
	Combined      string `toml:"combined"`      // key, leaf, intermediates
	Leaf          string `toml:"leaf"`          // the leaf alone
	Intermediates string `toml:"intermediates"` // what is between leaf and root
	CA            string `toml:"ca"`            // intermediates and roots; also there as ca.crt
	PKCS12        string `toml:"pkcs12"`        // key, leaf and intermediates
	PasswordFile  string `toml:"pkcs12_password_file"`
	Owner         string `toml:"owner"` // "user" or "user:group" of what holds the key
	KeyMode       string `toml:"key_mode"`
}

// Mode is KeyMode as a number, of a checked configuration; 0 where it is not said.
func (f Files) Mode() uint32 {
	mode, err := strconv.ParseUint(f.KeyMode, 8, 12)
	if err != nil {
		return 0
	}
	return uint32(mode)
}

func (f Files) isZero() bool { return f == Files{} }

// names are the configured names, by key.
func (f Files) names() [][2]string {
	return [][2]string{
		{"certificate", f.Certificate}, {"key", f.Key}, {"combined", f.Combined}, {"leaf", f.Leaf},
		{"intermediates", f.Intermediates}, {"ca", f.CA}, {"pkcs12", f.PKCS12},
	}
}

// fillGeneral puts the defaults of profile general in place.
func (c *Certificate) fillGeneral() {
	s := &c.Service
	switch {
	case s.Action != "":
	case len(s.Reload) > 0 || s.Signal != "":
		s.Action = Reload
	case s.Unit != "" || len(s.Start) > 0:
		s.Action = Restart
	default:
		s.Action = NoAct
	}
}

// reservedSets are names in the state folder that are no general set's.
var reservedSets = []string{"keylime", "state"}

func (c *Certificate) checkProfile(i int, at atFunc) *fault {
	if c.Profile == General {
		return c.checkGeneral(i, at)
	}
	switch {
	case c.ForUsage != "":
		return at("usage", "remove the line: the profile has its usage", "usage beside profile %s", c.Profile)
	case !c.Files.isZero():
		return wrong("certificate.files", i, "folder", "remove the table: Keylime finds its files by its settings", "files beside profile %s", c.Profile)
	case c.Service.Action != "" || len(c.Service.Reload) > 0 || c.Service.Signal != "" || c.Service.Program != "":
		return wrong("certificate.service", i, "action", "remove action, reload, signal and program: no service of Keylime reads a certificate twice, it is restarted", "action beside profile %s", c.Profile)
	}
	return nil
}

func (c *Certificate) checkGeneral(i int, at atFunc) *fault {
	switch {
	case c.ForUsage != Server && c.ForUsage != Client:
		return at("usage", `"server" or "client"; a certificate has one, never both`, "usage = %q", c.ForUsage)
	case slices.Contains(reservedSets, c.Name):
		return at("name", "choose another: it names a folder of the agent's state", "name = %q", c.Name)
	case c.Mode != "":
		return at("mode", "remove the line: nothing is written into a program's configuration", "mode beside profile general")
	case len(c.Agents) > 0:
		return at("agents", "remove the line: it is for profile keylime-tenant", "agents beside profile general")
	case c.AgentVersion != "":
		return at("agent_version", "remove the line: it is for profile keylime-agent", "agent_version beside profile general")
	}
	if f := c.checkFiles(i); f != nil {
		return f
	}
	return c.checkAction(i)
}

var (
	fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$`)
	keyModes = []string{"", "0400", "0440", "0600", "0640"}
	owner    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?$`)
)

func (c *Certificate) checkFiles(i int) *fault {
	f := &c.Files
	at := func(key, hint, format string, args ...any) *fault {
		return wrong("certificate.files", i, key, hint, format, args...)
	}
	switch {
	case !isFolder(f.Folder):
		return at("folder", `a folder of its own for this certificate, as "/etc/nginx/omen"; it becomes a link`, "folder = %q", f.Folder)
	case slices.ContainsFunc(ours, func(folder string) bool { return strings.HasPrefix(f.Folder+"/", folder) }):
		return at("folder", "choose a folder of the program that reads it", "folder = %q: only the agent itself writes there", f.Folder)
	case !slices.Contains(keyModes, f.KeyMode):
		return at("key_mode", `"0600", or "0640" for a group; never for others`, "key_mode = %q", f.KeyMode)
	case f.Owner != "" && !owner.MatchString(f.Owner):
		return at("owner", `"user" or "user:group"`, "owner = %q", f.Owner)
	case (f.PKCS12 == "") != (f.PasswordFile == ""):
		return at("pkcs12", "give both pkcs12 and pkcs12_password_file, or none", "one of pkcs12 and pkcs12_password_file")
	}
	// There root replaces what stands at the folder, by a link.
	if err := untrustedFolder(filepath.Dir(f.Folder)); err != nil {
		return at("folder", `choose one whose way is root's alone, as "/etc/nginx/omen"; or chown root: and chmod go-w what the message names`, "folder = %q: %w", f.Folder, err)
	}
	if fault := c.checkFileNames(at); fault != nil || f.PKCS12 == "" {
		return fault
	}
	return resolve(place{"certificate.files", i, "pkcs12_password_file"}, &f.PasswordFile, true, "a file with the password and nothing else, mode 0600")
}

func isFolder(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && filepath.Dir(path) != "/" && path != "/"
}

// checkFileNames refuses names that would meet one another, or what is in every set.
func (c *Certificate) checkFileNames(at atFunc) *fault {
	taken := map[string]string{
		c.Name + ".crt": "certificate", c.Name + ".key": "key", "ca.crt": "ca",
		c.Name + ".sealed": "", c.Name + ".forms": "", c.Name + ".bundle.pem": "", c.Name + ".bundle.json": "",
	}
	for _, one := range c.Files.names() {
		key, name := one[0], one[1]
		if name == "" {
			continue
		}
		if !fileName.MatchString(name) || strings.HasSuffix(name, ".sealed") || strings.HasSuffix(name, ".forms") {
			return at(key, "a file name without a folder; not ending in .sealed or .forms", "%s = %q", key, name)
		}
		if other, there := taken[name]; there && other != key {
			return at(key, "give each file a name of its own", "%s = %q: that is the name of another file", key, name)
		}
		taken[name] = key
	}
	return nil
}

// checkAction looks at how a program gets to its new certificate.
func (c *Certificate) checkAction(i int) *fault {
	s := &c.Service
	at := func(key, hint, format string, args ...any) *fault {
		return wrong("certificate.service", i, key, hint, format, args...)
	}
	managed := s.Unit != "" || len(s.Start) > 0
	told := len(s.Reload) > 0 || s.Signal != ""
	switch {
	case s.Action != Restart && s.Action != Reload && s.Action != NoAct:
		return at("action", `"restart", "reload" or "none"`, "action = %q", s.Action)
	case s.Action == Restart && !managed:
		return at("action", "name the unit, or the command that starts it", `action = "restart" of what has neither unit nor start`)
	case s.Action == Reload && !managed && !told:
		return at("action", "name the unit, or give reload or signal", `action = "reload" of what has neither unit, reload nor signal`)
	case told && s.Action != Reload:
		return at("action", `action = "reload"`, "reload or signal beside action = %q", s.Action)
	case len(s.Reload) > 0 && s.Signal != "":
		return at("signal", "give one of them", "reload and signal")
	case len(s.Reload) > 0 && !filepath.IsAbs(s.Reload[0]):
		return at("reload", "the program with its full path, then its arguments; no shell reads it", "reload = %q", s.Reload)
	case s.Signal != "" && s.Unit != "":
		return at("signal", "a unit is reloaded by its ExecReload=, or by a command", "signal beside unit")
	case s.Signal != "" && !slices.Contains([]string{"HUP", "USR1", "USR2"}, s.Signal):
		return at("signal", `"HUP", "USR1" or "USR2"`, "signal = %q", s.Signal)
	case s.Signal != "" && (s.PIDFile == "" || !managed && s.Program == ""):
		return at("signal", "give pid_file, and program: the base name of the executable", "signal without pid_file and program")
	case s.PIDFile != "" && !filepath.IsAbs(s.PIDFile):
		return at("pid_file", "an absolute path", "pid_file = %q", s.PIDFile)
	case s.Probe != "" && c.ForUsage == Client:
		return at("probe", "remove the line: a client serves nothing", "probe of a client")
	}
	return nil
}

// checkFolders refuses two sets in one folder, or one in the other.
func (c *Config) checkFolders() *fault {
	for i := range c.Certificates {
		for j := range c.Certificates[:i] {
			a, b := c.Certificates[i].Files.Folder, c.Certificates[j].Files.Folder
			if a != "" && b != "" && (strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")) {
				return wrong("certificate.files", i, "folder", "give each certificate a folder of its own", "folder = %q and %q", a, b)
			}
		}
	}
	return nil
}
