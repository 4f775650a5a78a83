// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"context"
	"errors"
	"slices"
	"strings"

	"funlab.casa/omen/install/unitfile"
)

// Token is a place where a token stands that does not end by itself soon. Its value
// is not told.
type Token struct {
	File string `json:"file"`
	Name string `json:"name"` // of the variable or header; "" for a file that is a token
}

// environmentFiles and environmentFolders are where systemd, PAM and init scripts
// find variables.
var (
	environmentFiles   = []string{"/etc/environment", "/etc/profile", "/root/.bashrc", "/root/.profile", "/root/.bash_profile"}
	environmentFolders = []string{"/etc/default", "/etc/sysconfig", "/etc/environment.d", "/etc/profile.d", "/etc/omen-agent", "/etc/keylime"}
	// bao login leaves its token here.
	tokenFiles = []string{"/root/.vault-token", "/root/.bao-token"}
)

// Tokens finds static tokens: in environment files, also those that units name, in
// units and their drop-ins, in crontabs and their scripts, in scripts that lie where
// people put them, and where bao login keeps one. The error says what could not be
// read.
func (s Search) Tokens(ctx context.Context) ([]Token, error) {
	l, err := newLook(ctx, s)
	if err != nil {
		return nil, err
	}
	defer l.files.close()
	paths := slices.Concat(environmentFiles, l.inFolders(environmentFolders, strayFolders, cronFolders))
	paths = append(paths, "/etc/crontab", "/etc/anacrontab")
	paths = append(paths, l.unitFiles()...)
	slices.Sort(paths)
	var found []Token
	for _, path := range slices.Compact(paths) {
		if name := l.tokenIn(path); name != "" {
			found = append(found, Token{File: path, Name: name})
		}
	}
	for _, path := range tokenFiles {
		if file := l.files.read(path); file != nil && strings.TrimSpace(file.content) != "" {
			found = append(found, Token{File: path})
		}
	}
	return found, errors.Join(l.files.errs...)
}

var cronFolders = []string{
	"/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly", "/var/spool/cron/crontabs", "/var/spool/cron",
}

// inFolders lists what is in folders.
func (l *look) inFolders(groups ...[]string) []string {
	var paths []string
	for _, folder := range slices.Concat(groups...) {
		for _, name := range l.files.folder(folder) {
			paths = append(paths, folder+"/"+name)
		}
	}
	return paths
}

// unitFiles lists the services of people with their drop-ins, and the environment
// files and programs that they name. What packages bring holds no token.
func (l *look) unitFiles() []string {
	var paths []string
	for _, folder := range unitfile.Folders {
		if isVendors(folder) {
			continue
		}
		for _, name := range l.files.folder(folder) {
			switch suffix(name) {
			case ".service":
				paths = append(paths, folder+"/"+name)
			case ".d":
				paths = append(paths, l.inFolders([]string{folder + "/" + name})...)
			}
		}
	}
	var named []string
	for _, path := range paths {
		if file := l.files.read(path); file != nil {
			named = append(named, l.namedIn(file.content)...)
		}
	}
	return append(paths, named...)
}

// namedIn lists the environment files and programs that a unit names.
func (l *look) namedIn(content string) []string {
	var paths []string
	for _, s := range unitfile.Parse(content) {
		switch {
		case s.Section == "Service" && s.Key == "EnvironmentFile":
			paths = append(paths, strings.TrimPrefix(s.Value, "-"))
		case s.Section == "Service" && strings.HasPrefix(s.Key, "Exec"):
			paths = append(paths, l.programs(s.Value)...)
		}
	}
	return paths
}

// tokenIn is the name of the first token in a text, "" without one.
func (l *look) tokenIn(path string) string {
	file := l.files.read(path)
	if file == nil || !isText(file.content) {
		return ""
	}
	return firstGroup(tokenPattern, withoutComments(file.content), "_TOKEN", "X-Vault-Token")
}
