// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// runner is as whom a line of cron runs.
type runner struct {
	name     string
	anywhere bool     // he may write in every folder
	folders  []string // in which he may
}

// reach is in which of the folders somebody may write.
type reach int

const (
	nowhere reach = iota
	somewhere
	everywhere
)

func (r runner) reach() reach {
	switch {
	case r.anywhere:
		return everywhere
	case len(r.folders) > 0:
		return somewhere
	}
	return nowhere
}

// writes reports that he may write in one of these folders; of none, that he may in any.
func (r runner) writes(folders []string) bool {
	if r.anywhere || len(folders) == 0 {
		return r.reach() != nowhere
	}
	return slices.ContainsFunc(folders, func(folder string) bool { return slices.Contains(r.folders, folder) })
}

// people are the users of a host, and who of them may write in which folder.
type people struct {
	uids    map[string]uint32
	groups  map[string][]uint32 // by user
	writers map[string]writers  // by folder
}

// writers may write in a folder.
type writers struct {
	all        bool
	uids, gids map[uint32]bool
}

// readPeople reads the user database, below the root as everything is: getpwnam would
// ask this process's host, and directory services.
func (l *look) readPeople() people {
	p := people{map[string]uint32{}, map[string][]uint32{}, map[string]writers{}}
	for _, user := range l.records("/etc/passwd") {
		name := user[0]
		uid, err := strconv.ParseUint(user[2], 10, 32)
		gid, wrong := strconv.ParseUint(user[3], 10, 32)
		if _, known := p.uids[name]; !known && err == nil && wrong == nil { // the first counts
			p.uids[name], p.groups[name] = uint32(uid), []uint32{uint32(gid)}
		}
	}
	for _, group := range l.records("/etc/group") {
		if gid, err := strconv.ParseUint(group[2], 10, 32); err == nil {
			for member := range strings.SplitSeq(group[3], ",") {
				p.groups[member] = append(p.groups[member], uint32(gid))
			}
		}
	}
	for _, folder := range l.Folders {
		p.writers[folder] = l.writersOf(folder)
	}
	return p
}

// records are the lines of passwd(5) or group(5).
func (l *look) records(name string) [][]string {
	file := l.files.read(name)
	if file == nil {
		return nil
	}
	var all [][]string
	for line := range strings.Lines(file.content) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) >= 4 {
			all = append(all, fields)
		}
	}
	return all
}

// writersOf looks at a folder, at what lies in it, and at what lies in its generations.
func (l *look) writersOf(folder string) writers {
	w := writers{uids: map[uint32]bool{}, gids: map[uint32]bool{}}
	if !w.add(l.files.stat(folder)) {
		return w
	}
	var all []string
	for _, name := range l.files.folder(folder) {
		inside := folder + "/" + name
		if !w.add(l.files.stat(inside)) {
			continue
		}
		for _, file := range l.files.folder(inside) {
			all = append(all, inside+"/"+file)
		}
		if len(all) > maxNames {
			l.files.fail(&fs.PathError{Op: "read", Path: folder, Err: errSpent})
			break
		}
	}
	for _, file := range all {
		w.add(l.files.stat(file))
	}
	return w
}

// add takes in who may write what was looked at, a file or a folder; an owner can
// give himself the right. It reports a folder.
func (w *writers) add(stat *unix.Stat_t) (folder bool) {
	if stat == nil || stat.Mode&unix.S_IFMT != unix.S_IFREG && stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false // a link to /dev/null makes nobody a writer
	}
	w.uids[stat.Uid] = true
	if stat.Mode&unix.S_IWGRP != 0 {
		w.gids[stat.Gid] = true
	}
	w.all = w.all || stat.Mode&unix.S_IWOTH != 0
	return stat.Mode&unix.S_IFMT == unix.S_IFDIR
}

// named is whom a line of root's table names. Whoever is not known here may be anybody.
func (l *look) named(user string) runner {
	uid, known := l.people.uids[user]
	if !known {
		return runner{name: user, anywhere: true}
	}
	return l.runner(user, uid)
}

// owner is as whom a user's own table runs. A user of a directory service is known by
// his file.
func (l *look) owner(user, table string) runner {
	uid, known := l.people.uids[user]
	if !known {
		stat := l.files.stat(table)
		if stat == nil {
			return runner{name: user, anywhere: true}
		}
		uid = stat.Uid
	}
	return l.runner(user, uid)
}

func (l *look) runner(name string, uid uint32) runner {
	r := runner{name: name, anywhere: uid == 0}
	for _, folder := range l.Folders {
		w := l.people.writers[folder]
		inGroup := slices.ContainsFunc(l.people.groups[name], func(gid uint32) bool { return w.gids[gid] })
		if w.all || w.uids[uid] || inGroup {
			r.folders = append(r.folders, folder)
		}
	}
	return r
}
