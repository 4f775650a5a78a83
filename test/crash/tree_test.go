// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// copyTree copies folders, links and files with their modes and owners.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return copyEntry(path, to+strings.TrimPrefix(path, from), info)
	})
}

func copyEntry(from, to string, info fs.FileInfo) error {
	var err error
	switch {
	case info.IsDir():
		err = os.Mkdir(to, 0o700)
	case info.Mode()&fs.ModeSymlink != 0:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default:
		var text []byte
		if text, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
	}
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	if err := os.Lchown(to, int(stat.Uid), int(stat.Gid)); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return err
	}
	return os.Chmod(to, info.Mode().Perm())
}

var (
	generation = regexp.MustCompile(`gen-[0-9]{6}`)
	refusedSet = regexp.MustCompile(`refused-[0-9]{6}`)
)

// generations lists the generations that are there, and which is current.
func (h *host) generations() (current string, all []string, err error) {
	store := filepath.Join(h.root, "var/lib/omen-agent/keylime")
	if current, err = os.Readlink(store + "/current"); err != nil {
		return "", nil, err
	}
	folders, err := filepath.Glob(store + "/gen-*")
	for _, folder := range folders {
		all = append(all, filepath.Base(folder))
	}
	slices.Sort(all)
	return current, all, err
}

// shape lists all that an installation leaves on a host: every path with its
// kind, mode and owner, the text of every link. Generations are told apart by
// their order, and not by their numbers.
func (h *host) shape() ([]string, error) {
	current, all, err := h.generations()
	if err != nil {
		return nil, err
	}
	rename := func(name string) string {
		return fmt.Sprintf("gen%+d", slices.Index(all, name)-slices.Index(all, current))
	}
	var lines []string
	for _, folder := range []string{"etc", "var/lib", "run"} {
		top := filepath.Join(h.root, folder)
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			line, err := describe(strings.TrimPrefix(path, h.root), path, entry)
			line = refusedSet.ReplaceAllString(line, "refused")
			lines = append(lines, generation.ReplaceAllStringFunc(line, rename))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func describe(name, path string, entry fs.DirEntry) (string, error) {
	info, err := entry.Info()
	if err != nil {
		return name, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%s %s %d:%d", name, info.Mode(), stat.Uid, stat.Gid)
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		return line + " -> " + target, err
	}
	return line, nil
}
