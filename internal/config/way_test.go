// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// app is a folder of root's with one of a service's in it.
//
//	DIR/root    root's
//	DIR/app     the service's: it may put links and folders there
//	DIR/sticky  everybody's, sticky
func app(t *testing.T) string {
	t.Helper()
	dir := folder(t)
	for name, mode := range map[string]os.FileMode{"root": 0o755, "app": 0o755, "sticky": 0o777 | os.ModeSticky} {
		must(t, os.MkdirAll(dir+"/"+name+"/conf", 0o755))
		must(t, os.Chmod(dir+"/"+name, mode))
	}
	link(t, dir+"/root", dir+"/app/link", nobody)
	link(t, dir+"/app", dir+"/root/to-app", 0)
	link(t, "../root/./conf", dir+"/root/around", 0)
	link(t, "again", dir+"/root/again", 0)
	link(t, dir+"/root", dir+"/sticky/theirs", nobody)
	link(t, dir+"/root", dir+"/sticky/ours", 0)
	must(t, os.Chown(dir+"/app", nobody, nobody))
	return dir
}

func link(t *testing.T, target, name string, uid int) {
	t.Helper()
	must(t, os.Symlink(target, name))
	must(t, os.Lchown(name, uid, uid))
}

// loadIn is load with DIR in text standing for a folder that is there already.
func loadIn(t *testing.T, dir, text string) error {
	t.Helper()
	path := filepath.Join(dir, "agent.toml")
	write(t, path, strings.ReplaceAll(text, "DIR", dir), 0o644)
	_, err := Load(path)
	return err
}

// refused expects an error of a line, about a key and a path, with a remedy.
func refused(t *testing.T, what string, err error, key, path string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, errUntrusted) || e.Line == 0 || !strings.Contains(e.Hint, "chmod go-w") {
		t.Errorf("%s: got %v", what, err)
		return
	}
	if !strings.Contains(e.Error(), key) || !strings.Contains(e.Error(), path+" can be") {
		t.Errorf("%s: %v does not say that it is about %s and %s", what, err, key, path)
	}
}

// TestFolderOnAWayOfOthers: in the folder's parent root replaces what stands there, so
// nobody else may say which folder that is.
func TestFolderOnAWayOfOthers(t *testing.T) {
	dir := app(t)
	for folder, whose := range map[string]string{
		"/app/omen":             "/app",
		"/app/conf/omen":        "/app",
		"/app/link/conf":        "/app", // a link to where root writes alone
		"/app/absent/omen":      "/app", // they make that link tomorrow
		"/root/to-app/omen":     "/app",
		"/sticky/theirs/conf":   "/sticky/theirs",
		"/root/omen":            "",
		"/root/conf/omen":       "",
		"/root/absent/omen":     "",
		"/root/a/b/omen":        "",
		"/root/around/omen":     "",
		"/sticky/omen":          "",
		"/sticky/conf/omen":     "",
		"/sticky/ours/omen":     "",
		"/sticky/ours/conf/new": "",
	} {
		err := loadIn(t, dir, spire+strings.Replace(web, "/etc/nginx/omen", "DIR"+folder, 1))
		if whose != "" {
			refused(t, folder, err, "folder", dir+whose)
		} else if err != nil {
			t.Errorf("%s: %v", folder, err)
		}
	}
}

// What stands at the folder itself may be the service's: it is taken over, or not, when
// it is looked at.
func TestFolderOfTheService(t *testing.T) {
	dir := app(t)
	if err := loadIn(t, dir, spire+strings.Replace(web, "/etc/nginx/omen", "DIR/app", 1)); err != nil {
		t.Error(err)
	}
}

// TestProgramsOfOthers: what root runs at each renewal nobody else may write or replace.
func TestProgramsOfOthers(t *testing.T) {
	dir := app(t)
	for _, name := range []string{"/root/good", "/root/written", "/root/theirs", "/app/program"} {
		write(t, dir+name, "#!/bin/sh\n", 0o755)
	}
	must(t, os.Chmod(dir+"/root/written", 0o775))
	must(t, os.Chown(dir+"/root/theirs", nobody, nobody))
	link(t, "good", dir+"/root/same", 0)
	link(t, dir+"/root/good", dir+"/app/good", nobody)
	head, _, _ := strings.Cut(web, "unit =")
	for program, whose := range map[string]string{
		"/root/written":       "/root/written",
		"/root/theirs":        "/root/theirs",
		"/app/program":        "/app",
		"/app/good":           "/app", // a link to a program of root's, today
		"/app/link/good":      "/app",
		"/app/absent":         "/app",
		"/root/to-app/good":   "/app",
		"/sticky/theirs/good": "/sticky/theirs",
		"/root/good":          "",
		"/root/same":          "",
		"/sticky/ours/good":   "",
		"/root/absent":        "", // a renewal says so
		"/root/again":         "",
	} {
		for key, lines := range map[string]string{
			"reload": `reload = ["DIR` + program + `", "now"]`,
			"start":  `start = ["DIR` + program + `", "now"]` + "\npid_file = \"/run/a.pid\"",
		} {
			err := loadIn(t, dir, spire+head+lines+"\n")
			if whose != "" {
				refused(t, key+" "+program, err, key, dir+whose)
			} else if err != nil {
				t.Errorf("%s %s: %v", key, program, err)
			}
		}
	}
}

// A program that is not run as root is whoever's it runs as.
func TestProgramsOfWhomTheyRunAs(t *testing.T) {
	dir := app(t)
	head, _, _ := strings.Cut(web, "unit =")
	start := "start = [\"DIR/app/program\"]\npid_file = \"/run/a.pid\"\nuser = "
	for user, good := range map[string]bool{`"www-data"`: true, `"33"`: true, `"www-data:root"`: true, `"root"`: false, `"root:www-data"`: false, `"0"`: false, `"00:33"`: false} {
		err := loadIn(t, dir, spire+head+start+user+"\n")
		if !good {
			refused(t, user, err, "start", dir+"/app")
		} else if err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	reload := "reload = [\"DIR/app/program\"]\nuser = \"www-data\"\n"
	refused(t, "reload with user", loadIn(t, dir, spire+head+reload), "reload", dir+"/app")
}

// TestProgramsOfThisHost: links of the distribution lead to its programs.
func TestProgramsOfThisHost(t *testing.T) {
	head, _, _ := strings.Cut(web, "unit =")
	for _, program := range []string{"/bin/true", "/usr/bin/env", "/bin/sh", "/usr/sbin/nginx"} {
		if _, err := load(t, spire+head+"reload = [\""+program+"\"]\n"); err != nil {
			t.Errorf("%s: %v", program, err)
		}
	}
}

// A file that decides is held to the same: whoever sets the link says which anchor.
func TestLinkOfOthersToAnAnchor(t *testing.T) {
	dir := app(t)
	write(t, dir+"/root/root.pem", "x", 0o644)
	refused(t, "link", loadIn(t, dir, strings.Replace(spire, "DIR/root.pem", "DIR/app/link/root.pem", 1)), "anchor", dir+"/app")
	if err := loadIn(t, dir, strings.Replace(spire, "DIR/root.pem", "DIR/sticky/ours/root.pem", 1)); err != nil {
		t.Error(err)
	}
	if err := loadIn(t, dir, strings.Replace(spire, "DIR/root.pem", "DIR/root/again", 1)); err == nil {
		t.Error("a link to itself is accepted")
	}
}

// Keylime's services are started by commands too.
func TestProgramsOfKeylime(t *testing.T) {
	dir := app(t)
	for user, good := range map[string]bool{"": false, "user = \"keylime\"\n": true} {
		text := spire + "[[certificate]]\nname = \"registrar\"\nprofile = \"keylime-registrar\"\ncommon_name = \"spire.funlab.casa\"\n[certificate.service]\nstart = [\"DIR/app/program\"]\npid_file = \"/run/a.pid\"\n" + user
		if err := loadIn(t, dir, text); good {
			must(t, err)
		} else {
			refused(t, "Keylime", err, "start", dir+"/app")
		}
	}
}
