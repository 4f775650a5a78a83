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
	owner  string // of a user's own
	fields int    // before the command, for a line that does not begin with "@"
	nick   int    // the same, for a line that does
	active bool   // cron reads it
	// runs is as whom a line runs, by its last field before the command.
	runs func(field string) runner
}

// often are the folders of run-parts, less their beginning.
var often = []string{"hourly", "daily", "weekly", "monthly"}

// crontabs finds lines and scripts of cron and anacron that run as somebody who can
// renew.
func (l *look) crontabs() []Rival {
	found := l.lines(l.rootsTables())
	for _, span := range often {
		found = append(found, l.cronScripts("/etc/cron."+span)...)
	}
	return append(found, l.lines(l.usersTables(somewhere))...)
}

// rootsTables are those of the system, and of the users who may write everywhere.
func (l *look) rootsTables() []table {
	root := func(string) runner { return runner{name: "root", anywhere: true} }
	tables := []table{
		{"/etc/crontab", "", 6, 2, true, l.named},
		{"/etc/anacrontab", "", 3, 3, true, root},
	}
	for _, name := range l.files.folder("/etc/cron.d") {
		tables = append(tables, table{"/etc/cron.d/" + name, "", 6, 2, l.isRead(name), l.named})
	}
	return append(tables, l.usersTables(everywhere)...)
}

// harmless finds lines in the tables of users who cannot renew. The less a user may do
// the later his table comes, lest he spends what may be read.
func (l *look) harmless() []Rival { return l.lines(l.usersTables(nowhere)) }

// usersTables are the tables of the users who may write so far.
func (l *look) usersTables(r reach) []table {
	var tables []table
	for _, folder := range []string{"/var/spool/cron/crontabs", "/var/spool/cron"} {
		for _, user := range l.files.folder(folder) {
			path := folder + "/" + user
			if who := l.owner(user, path); who.reach() == r {
				tables = append(tables, table{path, user, 5, 1, true, func(string) runner { return who }})
			}
		}
	}
	return tables
}

// isRead reports that cron takes a file of this name. Debian's takes fewer.
func (l *look) isRead(name string) bool {
	if l.files.read("/etc/debian_version") != nil {
		return cronName.MatchString(name)
	}
	return !cronRefused.MatchString(name)
}

// lines judges each line of tables by itself. Of those in a table that cannot renew one
// is told: the others would fill the log.
func (l *look) lines(tables []table) []Rival {
	var found []Rival
	for _, t := range tables {
		entries, settings := l.entries(t.path)
		rest, told := l.text("it", settings), false
		for _, entry := range entries {
			if l.files.ctx.Err() != nil {
				return found
			}
			who, command := t.split(entry.text)
			e := l.line(who, command, rest)
			harmless := !who.writes(e.folders)
			if e.strength == nothing || harmless && told {
				continue
			}
			told = told || harmless
			found = append(found, t.rival(entry.number, who, e))
		}
	}
	return found
}

// entry is a line that starts something.
type entry struct {
	number int
	text   string
}

// entries takes a table apart. What sets a variable counts for the lines above it too:
// to judge it for each line would cost a long table's square.
func (l *look) entries(path string) (entries []entry, settings string) {
	file := l.files.read(path)
	if file == nil {
		return nil, ""
	}
	var set strings.Builder
	number := 0
	for line := range strings.Lines(file.content) {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case cronSetting.MatchString(line):
			set.WriteString(line + "\n")
		default:
			entries = append(entries, entry{number, line})
		}
	}
	return entries, set.String()
}

// line judges one line. Of what a user names who cannot renew nothing is read.
func (l *look) line(who runner, command string, settings evidence) evidence {
	judge := l.started
	if who.reach() == nowhere {
		judge = l.said
	}
	return l.commands([]string{command}, settings, judge)
}

// rival is a line that is more than nothing.
func (t table) rival(number int, who runner, e evidence) Rival {
	r := Rival{
		Name: t.place(number), Active: t.active && e.strength >= names && who.writes(e.folders),
		Reason: e.reason, Disable: fmt.Sprintf("take line %d out of %s", number, t.path), Remarks: e.remarks,
	}
	if t.owner != "" {
		r.Disable = fmt.Sprintf("crontab -u %s -e, and take line %d out", t.owner, number)
	}
	if e.strength >= names && !who.writes(e.folders) {
		r.Remarks = append(r.Remarks, "it runs as "+who.name+", who may not write there")
	}
	return r
}

func (t table) place(number int) string { return fmt.Sprintf("%s:%d", t.path, number) }

// split takes the fields before the command off a line. The last of them can say as whom
// it runs.
func (t table) split(line string) (who runner, command string) {
	fields, last := t.fields, ""
	if strings.HasPrefix(line, "@") {
		fields = t.nick
	}
	for range fields {
		end := strings.IndexAny(line+" ", " \t")
		last, line = line[:end], strings.TrimLeft(line[end:], " \t")
	}
	return t.runs(last), line
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
