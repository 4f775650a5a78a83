// SPDX-License-Identifier: Apache-2.0

package order

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/unitfile"
)

// What is read at most.
const (
	maxUnitFile  = 256 << 10 // bytes of one file
	maxUnitFiles = 8192      // names of one folder
)

// unitFiles are what the folders of a host have, by name.
type unitFiles struct {
	paths map[string][]string // the first counts
	links map[string]string   // to another name of the same unit
}

func findUnitFiles(root string) unitFiles {
	u := unitFiles{map[string][]string{}, map[string]string{}}
	for _, folder := range unitfile.Folders {
		for _, entry := range entries(filepath.Join(root, folder)) {
			path, name := filepath.Join(root, folder, entry.Name()), entry.Name()
			u.paths[name] = append(u.paths[name], path)
			if to := linked(path, entry); len(u.paths[name]) == 1 && isUnit(to) && to != name {
				u.links[name] = to
			}
		}
	}
	return u
}

// linked is the name that a link leads to; "" of what is none.
func linked(path string, entry fs.DirEntry) string {
	if entry.Type() != fs.ModeSymlink {
		return ""
	}
	to, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// entries lists a folder as far as it can be read; one that is not there is empty.
func entries(folder string) []fs.DirEntry {
	dir, err := os.Open(folder)
	if err != nil {
		return nil
	}
	defer dir.Close()
	all, _ := dir.ReadDir(maxUnitFiles)
	return all
}

// names are those of all units that have a file of their own.
func (u unitFiles) names() (all []string) {
	for name := range u.paths {
		if isUnit(name) {
			all = append(all, name)
		}
	}
	slices.Sort(all) // the same way is found each time
	return all
}

// realName is the name of a unit that may have several.
func (u unitFiles) realName(name string) string {
	for range len(u.links) { // links in a ring lead nowhere
		to, is := u.links[name]
		if !is {
			break
		}
		name = to
	}
	return name
}

// read reads a unit with its drop-ins, in the form of a file. Orders add to each
// other: which drop-in comes first is no matter.
func (u unitFiles) read(name string) (all []unitfile.Setting) {
	from, _ := unitfile.Template(name)
	for _, file := range []string{name, from} {
		if paths := u.paths[file]; len(paths) > 0 {
			all = readUnit(paths[0])
			break
		}
	}
	for _, folder := range []string{name + ".d", from + ".d", strings.TrimPrefix(filepath.Ext(name), ".") + ".d"} {
		for _, path := range u.paths[folder] {
			for _, entry := range entries(path) {
				if strings.HasSuffix(entry.Name(), ".conf") {
					all = append(all, readUnit(filepath.Join(path, entry.Name()))...)
				}
			}
		}
	}
	return all
}

// wanted are the units that links switch on for another.
func (u unitFiles) wanted(name string) (all []string) {
	for _, folder := range slices.Concat(u.paths[name+".wants"], u.paths[name+".requires"]) {
		for _, entry := range entries(folder) {
			all = append(all, entry.Name())
		}
	}
	return all
}

// isUnit tells the name of a unit; a template is none.
func isUnit(name string) bool {
	kinds := []string{".service", ".target", ".socket", ".mount", ".automount", ".swap", ".path", ".timer", ".device"}
	return slices.Contains(kinds, filepath.Ext(name)) && !strings.Contains(name, "@.")
}

// readUnit reads a unit file: a regular file, of which the beginning counts where it is
// too long. A link to /dev/null masks a unit.
func readUnit(path string) []unitfile.Setting {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(file, maxUnitFile))
	if err != nil {
		return nil
	}
	return unitfile.Parse(string(content))
}
