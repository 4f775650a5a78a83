// SPDX-License-Identifier: Apache-2.0

package rival_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/rival"
	"funlab.casa/omen/test/world"
)

// host is a root directory.
type host struct {
	t    *testing.T
	root string
}

func newHost(t *testing.T) host {
	t.Helper()
	return host{t, t.TempDir()}
}

func (h host) write(name, content string, mode os.FileMode) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.WriteFile(path, []byte(content), mode))
	h.must(os.Chmod(path, mode))
}

// link makes a link as systemctl enable does.
func (h host) link(target, name string) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.Symlink(target, path))
}

func (h host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// seed lays the seed's renewal, the timer not enabled.
func (h host) seed() {
	h.t.Helper()
	r, err := world.ReadSeedRenewal()
	h.must(err)
	h.write(world.SeedScriptFile, string(r.Script), 0o755)
	h.write(world.SeedServiceFile, string(r.Service), 0o644)
	h.write(world.SeedTimerFile, string(r.Timer), 0o644)
}

const (
	seedTimer = "renew-keylime-certs.timer"
	wants     = "/etc/systemd/system/timers.target.wants/"
	folder    = "/etc/keylime/certs"
)

func (h host) search() rival.Search {
	active := func(_ context.Context, units []string) ([]string, error) {
		text, err := os.ReadFile(filepath.Join(h.root, "etc", "omen-test-active"))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.Contains(units, string(text)) {
			return nil, nil
		}
		return units, err
	}
	return rival.Search{Active: active, Root: h.root, Folders: []string{folder, "/var/lib/omen-agent/keylime"}, Mounts: []string{"pki_int"}}
}

func (h host) find() []rival.Rival {
	h.t.Helper()
	found, err := h.search().Find(h.t.Context())
	h.must(err)
	return found
}

// one is the only rival there is.
func (h host) one() rival.Rival {
	h.t.Helper()
	found := h.find()
	if len(found) != 1 {
		h.t.Fatalf("found %d: %v", len(found), found)
	}
	return found[0]
}

func TestSeedTimer(t *testing.T) {
	h := newHost(t)
	h.seed()
	if r := h.one(); r.Active || r.Name != seedTimer {
		t.Errorf("disabled: %+v", r)
	}
	if err := rival.Refusal(h.find()); err != nil {
		t.Errorf("a disabled timer refuses: %v", err)
	}

	h.link(world.SeedTimerFile, wants+seedTimer)
	r := h.one()
	if !r.Active || r.Disable != "systemctl disable --now renew-keylime-certs.timer" {
		t.Errorf("enabled: %+v", r)
	}
	for _, want := range []string{"renew-keylime-certs.service", world.SeedScriptFile, folder, "pki_int/issue", "holds a token (BAO_TOKEN)", "(BAO_SKIP_VERIFY)"} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("%q is not in %s", want, r)
		}
	}
	if strings.Contains(r.String(), "<your-token>") {
		t.Errorf("the token is told: %s", r)
	}
	err := rival.Refusal(h.find())
	if !errors.Is(err, rival.ErrActive) || remedy.Of(err) != r.Disable || !strings.Contains(err.Error(), seedTimer) {
		t.Errorf("refusal %v, hint %q", err, remedy.Of(err))
	}
}

// A script alone, whose units are gone, is worth a word.
func TestScriptLyingAround(t *testing.T) {
	h := newHost(t)
	h.seed()
	h.must(os.Remove(filepath.Join(h.root, world.SeedServiceFile)))
	h.must(os.Remove(filepath.Join(h.root, world.SeedTimerFile)))
	if r := h.one(); r.Active || r.Name != world.SeedScriptFile || len(r.Remarks) != 2 {
		t.Errorf("%+v", r)
	}
}

const (
	script  = "#!/bin/sh\ncp /root/new/*.crt /etc/keylime/certs/\n"
	service = "[Service]\nExecStart=/opt/renew\n"
	timer   = "[Timer]\nOnCalendar=daily\n"
)

// cases are hosts on which somebody else renews, or not.
var cases = map[string]struct {
	lay    func(h host)
	name   string // of the rival, "" for none
	active bool
	how    string
}{
	"started and not enabled": {func(h host) {
		h.seed()
		h.write("/etc/omen-test-active", seedTimer, 0o644)
	}, seedTimer, true, "systemctl disable --now " + seedTimer},
	"masked": {func(h host) {
		h.seed()
		h.link("/usr/lib/systemd/system/"+seedTimer, wants+seedTimer)
		h.must(os.Remove(filepath.Join(h.root, world.SeedTimerFile)))
		h.link("/dev/null", world.SeedTimerFile)
	}, "renew-keylime-certs.service", false, ""},
	"service masked": {func(h host) {
		h.seed()
		h.link(world.SeedTimerFile, wants+seedTimer)
		h.must(os.Remove(filepath.Join(h.root, world.SeedServiceFile)))
		h.link("/dev/null", world.SeedServiceFile)
	}, world.SeedScriptFile, false, ""},
	"another name, another unit": {func(h host) {
		h.write("/usr/lib/systemd/system/a.timer", timer+"Unit=b.service\n", 0o644)
		h.write("/usr/lib/systemd/system/b.service", service, 0o644)
		h.write("/opt/renew", script, 0o755)
		h.link("../a.timer", "/usr/lib/systemd/system/timers.target.wants/a.timer")
	}, "a.timer", true, "systemctl mask --now a.timer"},
	"transient": {func(h host) {
		h.write("/run/systemd/transient/run-r1.timer", timer, 0o644)
		h.write("/run/systemd/transient/run-r1.service", service, 0o644)
		h.write("/opt/renew", script, 0o755)
	}, "run-r1.timer", true, "systemctl stop run-r1.timer"},
	"instance": {func(h host) {
		h.write("/etc/systemd/system/renew@.timer", timer, 0o644)
		h.write("/etc/systemd/system/renew@.service", "[Service]\nExecStart=/opt/renew-%i\n", 0o644)
		h.write("/opt/renew-keylime", script, 0o755)
		h.link("/etc/systemd/system/renew@.timer", wants+"renew@keylime.timer")
	}, "renew@keylime.timer", true, ""},
	"the command itself": {func(h host) {
		h.write("/etc/systemd/system/a.timer", timer, 0o644)
		h.write("/etc/systemd/system/a.service", "[Service]\nExecStart=/bin/sh -c \\\n  \"cp /root/new/* "+folder+"/\"\n", 0o644)
		h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	}, "a.timer", true, ""},
	"a drop-in": {func(h host) {
		h.write("/etc/systemd/system/a.timer", timer, 0o644)
		h.write("/etc/systemd/system/a.service", "[Service]\nExecStart=/bin/true\n", 0o644)
		h.write("/etc/systemd/system/a.service.d/x.conf", "[Service]\nExecStart=\nExecStart=-/opt/renew\n", 0o644)
		h.write("/opt/renew", script, 0o755)
		h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	}, "a.timer", true, ""},
	"taken back by a drop-in": {func(h host) {
		h.write("/etc/systemd/system/a.timer", timer, 0o644)
		h.write("/etc/systemd/system/a.service", service, 0o644)
		h.write("/etc/systemd/system/a.service.d/x.conf", "[Service]\nExecStart=\nExecStart=/bin/true\n", 0o644)
		h.write("/opt/renew", script, 0o755)
		h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	}, "", false, ""},
	"a script in a script": {func(h host) {
		h.write("/etc/systemd/system/a.timer", timer, 0o644)
		h.write("/etc/systemd/system/a.service", service, 0o644)
		h.write("/opt/renew", "#!/bin/sh\nexec /opt/really \"$@\"\n", 0o755)
		h.write("/opt/really", script, 0o755)
		h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	}, "a.timer", true, ""},
	"another service's certificates": {func(h host) {
		h.write("/etc/systemd/system/a.timer", timer, 0o644)
		h.write("/etc/systemd/system/a.service", service, 0o644)
		h.write("/opt/renew", "#!/bin/sh\nbao write pki_int/issue/nginx common_name=www.test\n", 0o755)
		h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	}, "a.timer", false, ""},
	"another folder with a longer name": {func(h host) {
		h.write("/etc/cron.d/a", "0 3 * * * root cp -r /root/x /etc/keylime/certs-of-old/\n", 0o644)
	}, "", false, ""},
	"a comment": {func(h host) {
		h.write("/etc/cron.d/a", "# 0 3 * * * root /opt/renew /etc/keylime/certs\n0 3 * * * root /opt/x\n", 0o644)
		h.write("/opt/x", "#!/bin/sh\n# not for /etc/keylime/certs\ntrue\n", 0o755)
	}, "", false, ""},
	"a service that reads": {func(h host) {
		h.write("/etc/systemd/system/keylime_verifier.service", "[Service]\nExecStart=/usr/bin/keylime_verifier\nEnvironment=KEYLIME_VERIFIER_TLS_DIR="+folder+"\n", 0o644)
		h.link("/etc/systemd/system/keylime_verifier.service", "/etc/systemd/system/multi-user.target.wants/keylime_verifier.service")
	}, "", false, ""},
	"a service that renews at boot": {func(h host) {
		h.seed()
		h.must(os.Remove(filepath.Join(h.root, world.SeedTimerFile)))
		h.link(world.SeedServiceFile, "/etc/systemd/system/multi-user.target.wants/renew-keylime-certs.service")
	}, "renew-keylime-certs.service", true, "systemctl disable --now renew-keylime-certs.service"},
	"omen-agent by a timer": {func(h host) {
		h.write("/etc/systemd/system/a.timer", timer, 0o644)
		h.write("/etc/systemd/system/a.service", "[Service]\nExecStart=/usr/local/bin/omen-agent renew\nReadWritePaths="+folder+"\n", 0o644)
		h.write("/usr/local/bin/omen-agent", "#!/bin/sh\n# a wrapper\nomen /etc/keylime/certs pki_int/sign/spire.server\n", 0o755)
		h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	}, "", false, ""},
	"omen-agent by cron, and something else": {func(h host) {
		h.write("/etc/crontab", "@daily root omen-agent renew; cp /root/x.crt "+folder+"/\n", 0o644)
	}, "/etc/crontab:1", true, ""},
	"crontab": {func(h host) {
		h.write("/etc/crontab", "SHELL=/bin/sh\nPATH=/usr/bin\n\n17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n0 3 * * * root renew-keylime-certs.sh\n", 0o644)
		h.write(world.SeedScriptFile, script, 0o755)
	}, "/etc/crontab:5", true, "take line 5 out of /etc/crontab"},
	"cron.d": {func(h host) {
		h.write("/etc/cron.d/renew", "@daily root /opt/renew >/dev/null\n", 0o644)
		h.write("/opt/renew", script, 0o755)
	}, "/etc/cron.d/renew:1", true, "take line 1 out of /etc/cron.d/renew"},
	"cron.d, a name that Debian leaves out": {func(h host) {
		h.write("/etc/debian_version", "12.0\n", 0o644)
		h.write("/etc/cron.d/renew.disabled", "@daily root cp /root/a "+folder+"/\n", 0o644)
	}, "/etc/cron.d/renew.disabled:1", false, ""},
	"a user's crontab": {func(h host) {
		h.write("/var/spool/cron/crontabs/root", "# m h dom mon dow command\n0 3 * * * /opt/renew\n", 0o600)
		h.write("/opt/renew", script, 0o755)
	}, "/var/spool/cron/crontabs/root:2", true, "crontab -u root -e, and take line 2 out"},
	"cron.daily": {func(h host) {
		h.write("/etc/cron.daily/renew", script, 0o755)
	}, "/etc/cron.daily/renew", true, "chmod a-x /etc/cron.daily/renew"},
	"cron.weekly, not executable": {func(h host) {
		h.write("/etc/cron.weekly/renew", script, 0o644)
	}, "/etc/cron.weekly/renew", false, ""},
	"anacrontab": {func(h host) {
		h.write("/etc/anacrontab", "1 5 renew cp /root/a "+folder+"\n", 0o644)
	}, "/etc/anacrontab:1", true, ""},
	"straight into a generation": {func(h host) {
		h.write("/etc/cron.d/a", "0 3 * * * root cp /root/a /var/lib/omen-agent/keylime/current/\n", 0o644)
	}, "/etc/cron.d/a:1", true, ""},
}

func TestHosts(t *testing.T) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.lay(h)
			if c.name == "" {
				if found := h.find(); len(found) != 0 {
					t.Fatalf("found %v", found)
				}
				return
			}
			r := h.one()
			if r.Name != c.name || r.Active != c.active || c.how != "" && r.Disable != c.how {
				t.Errorf("got %+v", r)
			}
			if c.active != (rival.Refusal([]rival.Rival{r}) != nil) {
				t.Error("what is active refuses, and nothing else")
			}
		})
	}
}

// What a person has said to read only is left out, by unit and by file.
func TestReaders(t *testing.T) {
	h := newHost(t)
	h.seed()
	h.link(world.SeedTimerFile, wants+seedTimer)
	h.write("/etc/cron.d/check", "0 3 * * * root openssl x509 -checkend 3600 -in "+folder+"/verifier.crt\n", 0o644)
	if found := h.find(); len(found) != 2 {
		t.Fatalf("found %v", found)
	}
	s := h.search()
	s.Readers = []string{"/etc/cron.d/check", seedTimer}
	if found, err := s.Find(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

// Tokens that are taken from elsewhere are none that stand there.
func TestTokens(t *testing.T) {
	for line, want := range map[string]int{
		"export VAULT_TOKEN='hvs.abcdef'":                 1,
		"curl -H \"X-Vault-Token: s.abcdef\"":             1,
		"BAO_TOKEN=$(cat /run/token)":                     0,
		"BAO_TOKEN=\"$TOKEN\"":                            0,
		"BAO_TOKEN=`cat /run/token`":                      0,
		"BAO_TOKEN=":                                      0,
		"VAULT_SKIP_VERIFY=1":                             1,
		"BAO_SKIP_VERIFY=false":                           0,
		"bao write -tls-skip-verify x":                    1,
		"BAO_TOKEN=abcdef BAO_SKIP_VERIFY=\"true\" bao x": 2,
	} {
		h := newHost(t)
		h.write("/etc/cron.daily/renew", script+line+"\n", 0o755)
		r := h.one()
		if len(r.Remarks) != want {
			t.Errorf("%s: %q", line, r.Remarks)
		}
		if strings.Contains(r.String(), "abcdef") {
			t.Errorf("the token is told: %s", r)
		}
	}
}

// Nothing that hangs or never ends is opened, and links stay inside the root.
func TestHostileFiles(t *testing.T) {
	h := newHost(t)
	h.write("/etc/systemd/system/a.timer", timer, 0o644)
	h.write("/etc/systemd/system/a.service", "[Service]\nExecStart=/opt/pipe /opt/loop /opt/zero /opt/large /opt/out\n", 0o644)
	h.link("/etc/systemd/system/a.timer", wants+"a.timer")
	h.write("/opt/large", script+strings.Repeat("# x\n", 1<<20), 0o755)
	for _, pipe := range []string{"opt/pipe", "etc/cron.daily/pipe", "etc/systemd/system/pipe.service", "etc/crontab"} {
		h.must(os.MkdirAll(filepath.Dir(filepath.Join(h.root, pipe)), 0o755))
		h.must(syscall.Mkfifo(filepath.Join(h.root, pipe), 0o644))
	}
	h.link("/opt/loop", "/opt/loop")
	h.link("/dev/zero", "/opt/zero")
	outside := filepath.Join(t.TempDir(), "outside")
	h.must(os.WriteFile(outside, []byte(script), 0o755))
	h.link("../../../../../.."+outside, "/opt/out")
	r := h.one()
	if r.Name != "a.timer" || !strings.Contains(r.Reason, "/opt/large") {
		t.Errorf("got %+v", r)
	}
}

// A search that is told to end says that it is not complete.
func TestEnd(t *testing.T) {
	h := newHost(t)
	h.seed()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.search().Find(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := (rival.Search{Root: h.root, Folders: []string{"certs"}}).Find(t.Context()); err == nil {
		t.Error("a folder that is not absolute")
	}
}
