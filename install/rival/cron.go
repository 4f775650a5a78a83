// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	// cronName is what Debian's cron and run-parts take; cronRefused is what others
	// leave out.
	cronName    = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	cronRefused = regexp.MustCompile(`^[.#]|[~#]$|\.(?:bak|old|disabled|swp|cfsaved|rpm[a-z]+|dpkg-[a-z]+)$`)
	// cronSetting is a line that sets a variable (crontab(5)).
	cronSetting = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*[ \t]*=`)
)

// table is one crontab.
type table struct {
	path   string
	fields int    // before the command, for a line that does not begin with "@"
	nick   int    // the same, for a line that does
	active bool   // cron reads it
	how    string // to take line %d out of it
}

// crontabs finds lines and scripts of cron and anacron.
func (l *look) crontabs() []Rival {
	const edit = "take line %d out of "
	tables := []table{
		{"/etc/crontab", 6, 2, true, edit + "/etc/crontab"},
		{"/etc/anacrontab", 3, 3, true, edit + "/etc/anacrontab"},
	}
	for _, name := range l.files.folder("/etc/cron.d") {
		tables = append(tables, table{"/etc/cron.d/" + name, 6, 2, l.isRead(name), edit + "/etc/cron.d/" + name})
	}
	for _, folder := range []string{"/var/spool/cron/crontabs", "/var/spool/cron"} {
		for _, user := range l.files.folder(folder) {
			tables = append(tables, table{folder + "/" + user, 5, 1, true, "crontab -u " + user + " -e, and take line %d out"})
		}
	}
	var found []Rival
	for _, t := range tables {
		found = append(found, l.crontab(t)...)
	}
	for _, often := range []string{"hourly", "daily", "weekly", "monthly"} {
		found = append(found, l.cronScripts("/etc/cron."+often)...)
	}
	return found
}

// isRead reports that cron takes a file of this name. Debian's takes fewer.
func (l *look) isRead(name string) bool {
	if l.files.read("/etc/debian_version") != nil {
		return cronName.MatchString(name)
	}
	return !cronRefused.MatchString(name)
}

// crontab judges each line of a table by itself.
func (l *look) crontab(t table) []Rival {
	file := l.files.read(t.path)
	if file == nil {
		return nil
	}
	var found []Rival
	var settings strings.Builder
	number := 0
	for line := range strings.Lines(file.content) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if cronSetting.MatchString(line) {
			settings.WriteString(line + "\n")
			continue
		}
		e := l.commands([]string{t.command(line)}, settings.String())
		if e.strength == nothing {
			continue
		}
		found = append(found, Rival{
			Name: fmt.Sprintf("%s:%d", t.path, number), Active: t.active && e.strength >= names,
			Reason: e.reason, Disable: fmt.Sprintf(t.how, number), Remarks: e.remarks,
		})
	}
	return found
}

// command takes the fields before the command off a line.
func (t table) command(line string) string {
	fields := t.fields
	if strings.HasPrefix(line, "@") {
		fields = t.nick
	}
	for range fields {
		_, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		line = strings.TrimLeft(rest, " ")
	}
	return line
}

// cronScripts judges what run-parts starts.
func (l *look) cronScripts(folder string) []Rival {
	var found []Rival
	for _, name := range l.files.folder(folder) {
		path := folder + "/" + name
		e := l.script(path, 1)
		if e.strength == nothing {
			continue
		}
		l.seen[path] = true
		found = append(found, Rival{
			Name: path, Active: e.strength >= names && l.files.read(path).executable && l.isRead(name),
			Reason: e.reason, Disable: "chmod a-x " + path, Remarks: e.remarks,
		})
	}
	return found
}
