// SPDX-License-Identifier: Apache-2.0

package rival_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"funlab.casa/omen/install/rival"
)

// Users of a test's host.
const (
	keylimeUID = 4711
	copierUID  = 4712
	certsGID   = 4713
	nobodyUID  = 65534
)

// users lays the user database, and the folder of certificates as keylime's.
func (h host) users() {
	h.t.Helper()
	if os.Geteuid() != 0 {
		h.t.Fatal("this test needs root: sudo make test")
	}
	h.write("/etc/passwd", fmt.Sprintf("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nnobody:x:%d:%[1]d::/:/bin/sh\n"+
		"keylime:x:%d:%[2]d::/:/bin/sh\ncopier:x:%d:%d::/:/bin/sh\nmember:x:4714:4714::/:/bin/sh\n", nobodyUID, keylimeUID, copierUID, certsGID), 0o644)
	h.write("/etc/group", fmt.Sprintf("root:x:0:\ncerts:x:%d:other,member\n", certsGID), 0o644)
	h.write(folder+"/verifier.key", "", 0o600)
	h.own(folder, keylimeUID, 0, 0o755)
	h.own(folder+"/verifier.key", 0, 0, 0o600)
}

func (h host) own(name string, uid, gid int, mode os.FileMode) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	h.must(os.Chown(path, uid, gid))
	h.must(os.Chmod(path, mode))
}

// spool lays the table of a user, as crontab(1) does.
func (h host) spool(user string, uid int, content string) {
	h.t.Helper()
	name := "/var/spool/cron/crontabs/" + user
	h.write(name, content, 0o600)
	h.own(name, uid, 0, 0o600)
}

const copies = "cp /tmp/new/* " + folder + "/\n"

// A line stops a renewal where it runs as somebody who can write in the folder.
var runners = map[string]struct {
	lay    func(h host)
	active bool
}{
	"nobody's own table":   {func(h host) { h.spool("nobody", nobodyUID, "0 0 1 1 * : "+folder+"\n") }, false},
	"nobody, who has sudo": {func(h host) { h.spool("nobody", nobodyUID, "@daily sudo "+copies) }, false},
	"nobody, by a setting": {func(h host) { h.spool("nobody", nobodyUID, "A="+folder+"\n@daily true\n") }, false},
	"nobody in cron.d":     {func(h host) { h.write("/etc/cron.d/a", "@daily nobody "+copies, 0o644) }, false},
	"nobody in crontab":    {func(h host) { h.write("/etc/crontab", "0 0\t* * *  nobody\t"+copies, 0o644) }, false},
	"keylime's own table":  {func(h host) { h.spool("keylime", keylimeUID, "@daily "+copies) }, true},
	"keylime in crontab":   {func(h host) { h.write("/etc/crontab", "0 0 * * *\tkeylime\t"+copies, 0o644) }, true},
	"another name of root": {func(h host) {
		h.own(folder+"/verifier.key", keylimeUID, 0, 0o600)
		h.spool("toor", 0, "@daily "+copies)
	}, true},
	"root in cron.d": {func(h host) { h.write("/etc/cron.d/a", "@daily toor "+copies, 0o644) }, true},
	"anacron":        {func(h host) { h.write("/etc/anacrontab", "1 5 nobody "+copies, 0o644) }, true},
	"by a script": {func(h host) {
		h.write("/opt/renew", script, 0o755)
		h.spool("keylime", keylimeUID, "@daily /opt/renew\n")
	}, true},
	"of Keylime, into no folder": {func(h host) {
		h.spool("keylime", keylimeUID, "@daily bao write pki_int/issue/keylime x=y\n")
	}, true},
	"the owner of a file there": {func(h host) {
		h.own(folder+"/verifier.key", copierUID, 0, 0o600)
		h.spool("copier", copierUID, "@daily "+copies)
	}, true},
	"the owner of what lies in a generation": {func(h host) {
		h.write("/var/lib/omen-agent/keylime/1/verifier.key", "", 0o600)
		h.own("/var/lib/omen-agent/keylime/1/verifier.key", copierUID, 0, 0o600)
		h.spool("copier", copierUID, "@daily cp /tmp/verifier.key /var/lib/omen-agent/keylime/1/\n")
	}, true},
	"the owner of another set": {func(h host) {
		h.write("/var/lib/omen-agent/keylime/1/web.key", "", 0o600)
		h.own("/var/lib/omen-agent/keylime/1/web.key", copierUID, 0, 0o600)
		h.spool("copier", copierUID, "@daily "+copies)
	}, false},
	"a group, which may write": {func(h host) {
		h.own(folder, 0, certsGID, 0o775)
		h.spool("copier", copierUID, "@daily "+copies)
	}, true},
	"a member of the group, which may write": {func(h host) {
		h.own(folder, 0, certsGID, 0o775)
		h.spool("member", 4714, "@daily "+copies)
	}, true},
	"the owner of a file there, behind links": {func(h host) {
		h.must(os.RemoveAll(filepath.Join(h.root, folder)))
		h.write("/var/lib/omen-agent/keylime/1/verifier.key", "", 0o600)
		h.own("/var/lib/omen-agent/keylime/1/verifier.key", copierUID, 0, 0o600)
		h.link("1", "/var/lib/omen-agent/keylime/current")
		h.link("/var/lib/omen-agent/keylime/current", folder)
		h.spool("copier", copierUID, "@daily "+copies)
	}, true},
	"all may write into a pipe": {func(h host) {
		h.must(syscall.Mkfifo(filepath.Join(h.root, folder, "pipe"), 0o600))
		h.own(folder+"/pipe", nobodyUID, 0, 0o666)
		h.spool("nobody", nobodyUID, "@daily "+copies)
	}, false},
	"another group": {func(h host) {
		h.own(folder, 0, certsGID, 0o775)
		h.spool("nobody", nobodyUID, "@daily "+copies)
	}, false},
	"a group, which may read": {func(h host) {
		h.own(folder, 0, certsGID, 0o755)
		h.spool("copier", copierUID, "@daily "+copies)
	}, false},
	"all may write": {func(h host) {
		h.own(folder, 0, 0, 0o777)
		h.spool("nobody", nobodyUID, "@daily "+copies)
	}, true},
	"of a directory service, another": {func(h host) { h.spool("far", 5000, "@daily "+copies) }, false},
	"of a directory service, the owner": {func(h host) {
		h.own(folder, 5000, 0, 0o755)
		h.spool("far", 5000, "@daily "+copies)
	}, true},
	"whom only root knows": {func(h host) { h.write("/etc/cron.d/a", "@daily far "+copies, 0o644) }, true},
}

func TestRunners(t *testing.T) {
	for name, c := range runners {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.users()
			c.lay(h)
			r := h.one()
			if r.Active != c.active || c.active != (rival.Refusal([]rival.Rival{r}) != nil) {
				t.Errorf("got %+v", r)
			}
			if told := strings.Contains(r.String(), "may not write there"); told == c.active {
				t.Errorf("why it does not stop: %s", r)
			}
		})
	}
}

// A user's line that starts omen-agent is none, whoever he is.
func TestOwnLineOfAUser(t *testing.T) {
	h := newHost(t)
	h.users()
	h.spool("nobody", nobodyUID, "@daily omen-agent status "+folder+"\n")
	if found := h.find(); len(found) != 0 {
		t.Errorf("found %v", found)
	}
}

// One word is enough of a table that cannot renew: more would fill the log.
func TestManyLinesOfAUser(t *testing.T) {
	h := newHost(t)
	h.users()
	h.spool("nobody", nobodyUID, strings.Repeat("@daily "+copies, 20))
	if r := h.one(); r.Active || r.Name != "/var/spool/cron/crontabs/nobody:1" {
		t.Errorf("got %+v", r)
	}
}
