// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A disk is a file system of which some is on the platters and some only in
// memory. What fsync has not asked for may be lost or kept, piece by piece; only
// this holds: one call on one folder is whole or not at all, and a rename into
// another folder never loses both names.
type disk struct {
	root    *inode
	pending []*change // entries that no fsync has made durable, in their order
	files   []*inode  // files whose contents were written here
}

// inode is a file, link or folder. Contents and rights are there twice: as
// processes see them, and as they are on the platters.
type inode struct {
	kind            fs.FileMode // fs.ModeDir, fs.ModeSymlink or 0
	target          string      // of a link; it is written with its entry
	seen, durable   attributes
	entries, stable map[string]*inode // of a folder: as seen, and durable
}

type attributes struct {
	content  string
	mode     fs.FileMode
	uid, gid int
}

// change is what one call does to the entries of one folder: a name and what it
// means from then on, nil for nothing.
type change struct {
	folder *inode
	names  []string
	nodes  []*inode
	first  *change // the other half of a rename: this one is never kept without it
}

func newFolder(mode fs.FileMode) *inode {
	n := &inode{kind: fs.ModeDir, entries: map[string]*inode{}, stable: map[string]*inode{}}
	n.seen.mode = mode
	n.durable = n.seen
	return n
}

// readDisk is a disk with what is below a folder, all of it durable.
func readDisk(top string) (*disk, error) {
	root, err := readNode(top)
	return &disk{root: root}, err
}

func readNode(name string) (*inode, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	n := &inode{kind: info.Mode().Type(), seen: attributes{mode: info.Mode().Perm(), uid: int(stat.Uid), gid: int(stat.Gid)}}
	switch n.kind {
	case fs.ModeSymlink:
		n.target, err = os.Readlink(name)
	case fs.ModeDir:
		n.entries, n.stable = map[string]*inode{}, map[string]*inode{}
		var names []os.DirEntry
		names, err = os.ReadDir(name)
		for _, entry := range names {
			below, err := readNode(filepath.Join(name, entry.Name()))
			if err != nil {
				return nil, err
			}
			n.entries[entry.Name()], n.stable[entry.Name()] = below, below
		}
	default:
		var text []byte
		text, err = os.ReadFile(name)
		n.seen.content = string(text)
	}
	n.durable = n.seen
	return n, err
}

// find resolves a path as it is seen; the installer's calls never go through a
// link here, and where they do the caller is told.
func (d *disk) find(name string) (*inode, error) {
	n := d.root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			continue
		}
		if n.kind != fs.ModeDir || n.entries[part] == nil {
			return nil, fmt.Errorf("%s: nothing is there", name)
		}
		n = n.entries[part]
	}
	return n, nil
}

func (d *disk) folder(name string) (*inode, string, error) {
	n, err := d.find(path.Dir(name))
	return n, path.Base(name), err
}

// enter makes a change that is seen at once and durable after fsync.
func (d *disk) enter(c *change) *change {
	c.apply(c.folder.entries)
	d.pending = append(d.pending, c)
	return c
}

func (c *change) apply(entries map[string]*inode) {
	for at, name := range c.names {
		if c.nodes[at] == nil {
			delete(entries, name)
		} else {
			entries[name] = c.nodes[at]
		}
	}
}

// sync makes durable what fsync of n does: contents and rights, and of a folder
// the entries.
func (d *disk) sync(n *inode) {
	n.durable = n.seen
	if n.kind != fs.ModeDir {
		return
	}
	needed := map[*change]bool{}
	for _, c := range d.pending {
		if c.folder == n {
			needed[c], needed[c.first] = true, true
		}
	}
	var left []*change
	for _, c := range d.pending {
		if needed[c] {
			c.apply(c.folder.stable)
		} else {
			left = append(left, c)
		}
	}
	d.pending = left
}

// loss is what a power cut does to contents and rights that were not fsynced.
type loss int

const (
	kept loss = iota
	cut       // half of the content
	lost      // all of it
)

// after is the disk that a power cut leaves when it keeps these changes.
func (d *disk) after(keep func(at int) bool, l loss) *image {
	chosen := map[*change]bool{}
	for at, c := range d.pending {
		if keep(at) {
			chosen[c] = true
			if c.first != nil {
				chosen[c.first] = true
			}
		}
	}
	var changes []*change
	for _, c := range d.pending {
		if chosen[c] {
			changes = append(changes, c)
		}
	}
	im := image{}
	im.add("", d.root, changes, l)
	return &im
}

// image is a disk as it is found after the power is back: path to what is there.
type image map[string]found

type found struct {
	attributes
	kind   fs.FileMode
	target string
}

func (im image) add(name string, n *inode, changes []*change, l loss) {
	here := found{attributes: n.durable, kind: n.kind, target: n.target}
	switch l {
	case kept:
		here.attributes = n.seen
	case cut:
		if here.content != n.seen.content {
			here.content = n.seen.content[:len(n.seen.content)/2]
		}
	case lost:
	}
	im[name] = here
	if n.kind != fs.ModeDir {
		return
	}
	entries := maps.Clone(n.stable)
	for _, c := range changes {
		if c.folder == n {
			c.apply(entries)
		}
	}
	for below, node := range entries {
		if name == "" && below == "run" { // is in memory
			node = newFolder(0o755)
		}
		im.add(name+"/"+below, node, changes, l)
	}
}

// write makes an image a folder.
func (im image) write(root string) error {
	for _, name := range slices.Sorted(maps.Keys(im)) {
		if err := im[name].write(root + name); err != nil {
			return err
		}
	}
	return nil
}

func (f found) write(name string) error {
	var err error
	switch f.kind {
	case fs.ModeDir:
		err = os.Mkdir(name, 0o700)
	case fs.ModeSymlink:
		err = os.Symlink(f.target, name)
	default:
		err = os.WriteFile(name, []byte(f.content), 0o600)
	}
	if err == nil {
		err = os.Lchown(name, f.uid, f.gid)
	}
	if err != nil || f.kind == fs.ModeSymlink {
		return err
	}
	return os.Chmod(name, f.mode)
}

// key tells images apart.
func (im image) key() string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(im)) {
		fmt.Fprintf(&text, "%q %+v\n", name, im[name])
	}
	return text.String()
}
