// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"context"
	"errors"
	"regexp"
	"slices"

	"funlab.casa/omen/install/unitfile"
)

// renewal is a command that has omen-agent renew.
var renewal = regexp.MustCompile(`\bomen-agent\b[^|;&\n]*[ \t]["']?(?:renew|run)\b`)

// Ours finds what is switched on and has omen-agent renew on this host, beside its own
// unit: timers and services, lines and scripts of cron. The error says what could not be
// read.
func (s Search) Ours(ctx context.Context) ([]string, error) {
	l, err := newLook(ctx, s)
	if err != nil {
		return nil, err
	}
	defer l.files.close()
	found := slices.Concat(l.ownUnits(), l.ownLines(), l.ownScripts())
	return found, errors.Join(append(l.files.errs, ctx.Err())...)
}

func (l *look) ownUnits() []string {
	var found []string
	on := l.states()
	for _, name := range l.unitNames(on) {
		u, loaded := l.load(name)
		if !loaded || name == unitfile.Agent {
			continue
		}
		started := u
		if section := triggers[suffix(name)]; section != "" {
			started, _ = l.load(u.service(section))
		}
		if slices.ContainsFunc(started.starts(), renewal.MatchString) && l.active(u, on) {
			found = append(found, name)
		}
	}
	return found
}

func (l *look) ownLines() []string {
	var found []string
	for _, t := range l.rootsTables() {
		entries, _ := l.entries(t.path)
		for _, entry := range entries {
			if who, command := t.split(entry.text); t.active && who.reach() == everywhere && renewal.MatchString(command) {
				found = append(found, t.place(entry.number))
			}
		}
	}
	return found
}

// uncommented is a line of a script that is no comment.
var uncommented = regexp.MustCompile(`(?m)^[ \t]*[^# \t\n].*$`)

func (l *look) ownScripts() []string {
	var found []string
	for _, span := range often {
		for _, name := range l.files.folder("/etc/cron." + span) {
			file := l.files.read("/etc/cron." + span + "/" + name)
			if file != nil && file.executable && l.isRead(name) && slices.ContainsFunc(uncommented.FindAllString(file.content, -1), renewal.MatchString) {
				found = append(found, "/etc/cron."+span+"/"+name)
			}
		}
	}
	return found
}
