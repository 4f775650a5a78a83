// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// replay does to a disk what a call did below root. Calls that failed and those
// about other files do nothing.
func (d *disk) replay(c call, root string) error {
	if c.value < 0 || !c.within(root) {
		return nil
	}
	var names []string
	for _, name := range c.paths() {
		names = append(names, strings.TrimPrefix(name, root))
	}
	var err error
	switch c.name {
	case "openat", "openat2":
		err = d.open(names[0], c)
	case "write":
		err = d.append(names[0], c.args[1][:c.value])
	case "fsync", "fdatasync":
		var n *inode
		if n, err = d.find(names[0]); err == nil {
			d.sync(n)
		}
	case "mkdirat", "mkdir":
		var mode fs.FileMode
		if mode, err = octal(c.args[len(c.args)-1]); err == nil {
			err = d.make(names[0], newFolder(mode))
		}
	case "symlinkat", "symlink":
		err = d.make(names[0], &inode{kind: fs.ModeSymlink, target: c.args[0]})
	case "linkat", "link":
		var n *inode
		if n, err = d.find(names[0]); err == nil {
			err = d.make(names[1], n)
		}
	case "unlinkat", "unlink", "rmdir":
		err = d.make(names[0], nil)
	case "renameat", "renameat2", "rename":
		err = d.rename(names[0], names[1], strings.Contains(strings.Join(c.args, " "), "RENAME_EXCHANGE"))
	case "fchown", "fchmod":
		err = d.own(names[0], c)
	default:
		err = fmt.Errorf("not known to the replay")
	}
	if err != nil {
		return fmt.Errorf("replay %v: %w", c, err)
	}
	return nil
}

func octal(text string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	return fs.FileMode(mode), err
}

// open makes the file that O_CREAT makes, and empties one for O_TRUNC.
func (d *disk) open(name string, c call) error {
	flags := strings.Join(c.args[2:], ",")
	if strings.Contains(flags, "O_TRUNC") {
		return fmt.Errorf("a file is overwritten in place")
	}
	if _, err := d.find(name); err == nil || !strings.Contains(flags, "O_CREAT") {
		return nil // also a folder that was reached through a link
	}
	n := &inode{}
	_, text, found := strings.Cut(flags, "mode=")
	if !found {
		text = c.args[3]
	}
	text, _, _ = strings.Cut(text, ",")
	mode, err := octal(text)
	if err != nil {
		return err
	}
	n.seen.mode = mode
	n.durable = n.seen
	d.files = append(d.files, n)
	return d.make(name, n)
}

// append writes behind what was written before: every file is written once, from
// its beginning.
func (d *disk) append(name, text string) error {
	n, err := d.find(name)
	if err != nil {
		return err
	}
	for _, made := range d.files {
		if made == n {
			n.seen.content += text
			return nil
		}
	}
	return fmt.Errorf("a file is overwritten in place")
}

// make enters a name, or with nil takes it away.
func (d *disk) make(name string, n *inode) error {
	folder, base, err := d.folder(name)
	if err != nil {
		return err
	}
	d.enter(&change{folder: folder, names: []string{base}, nodes: []*inode{n}})
	return nil
}

func (d *disk) rename(from, to string, exchange bool) error {
	source, old, err := d.folder(from)
	if err != nil {
		return err
	}
	target, fresh, err := d.folder(to)
	if err != nil {
		return err
	}
	moved, replaced := source.entries[old], target.entries[fresh]
	switch {
	case moved == nil:
		return fmt.Errorf("%s: nothing is there", from)
	case source == target && exchange:
		d.enter(&change{folder: source, names: []string{old, fresh}, nodes: []*inode{replaced, moved}})
	case source == target:
		d.enter(&change{folder: source, names: []string{old, fresh}, nodes: []*inode{nil, moved}})
	case exchange:
		return fmt.Errorf("exchange between folders")
	default:
		there := d.enter(&change{folder: target, names: []string{fresh}, nodes: []*inode{moved}})
		d.enter(&change{folder: source, names: []string{old}, nodes: []*inode{nil}, first: there})
	}
	return nil
}

func (d *disk) own(name string, c call) error {
	n, err := d.find(name)
	if err != nil {
		return err
	}
	if c.name == "fchmod" {
		n.seen.mode, err = octal(c.args[1])
		return err
	}
	if n.seen.uid, err = strconv.Atoi(c.args[1]); err != nil {
		return err
	}
	n.seen.gid, err = strconv.Atoi(c.args[2])
	return err
}

// outcomes are the disks that a power cut may leave now: of the entries that were
// not fsynced none is kept, all, each alone, all but each; and of contents and
// rights that were not fsynced all, half or nothing. With n such entries these
// are at most 3 (2n + 2); those that look alike are one.
func (d *disk) outcomes() []outcome {
	n := len(d.pending)
	keeps := []choice{
		{"no entry kept", func(int) bool { return false }},
		{"every entry kept", func(int) bool { return true }},
	}
	for one, c := range d.pending {
		if n == 1 {
			break
		}
		keeps = append(keeps,
			choice{fmt.Sprintf("%v alone kept", c.names), func(at int) bool { return at == one }},
			choice{fmt.Sprintf("%v alone lost", c.names), func(at int) bool { return at != one }})
	}
	seen := map[string]bool{}
	var found []outcome
	for _, k := range keeps {
		for l, what := range []string{kept: "contents kept", cut: "contents cut", lost: "contents lost"} {
			im := d.after(k.keep, loss(l))
			if key := im.key(); !seen[key] {
				seen[key] = true
				found = append(found, outcome{im, k.name + ", " + what})
			}
		}
	}
	return found
}

// choice is which changes a power cut keeps.
type choice struct {
	name string
	keep func(at int) bool
}

// outcome is a disk with how it came to be.
type outcome struct {
	*image
	how string
}
