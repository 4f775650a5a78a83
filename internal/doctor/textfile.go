// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/install/unitfile"
)

func checkTextfile(ctx context.Context, p *patient) []Result {
	file := p.config.Metrics.Textfile
	if file == "" {
		return notApplicable("[metrics] names no textfile")
	}
	folder := path.Dir(file)
	dir, err := beneath.OpenPlain(p.under(folder))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return warning(folder, "install prometheus-node-exporter, or mkdir "+folder+"; then "+afterChange, "it is not there: no figures are written")
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR):
		return warning(folder, "realpath "+folder+" is what textfile has to name; then "+afterChange, "a link is on the way, which is not followed: no figures are written")
	case err != nil:
		return p.failed(folder, err)
	}
	defer dir.Close()
	if err := unix.Faccessat(dir.FD(), ".", unix.W_OK, unix.AT_EACCESS); err != nil && os.Geteuid() == 0 {
		return warning(folder, "mount it read-write", "it cannot be written: %v", err)
	}
	if found := p.stale(ctx, file); found != nil {
		return found
	}
	return p.read(file)
}

// fresh is how old the file is at most while omen-agent run runs, which writes it every
// ten minutes.
const fresh = 30 * time.Minute

// stale tells of figures that nobody writes, nil where somebody does, or nobody is known
// to have to.
func (p *patient) stale(ctx context.Context, file string) []Result {
	const look = "journalctl -u " + unitfile.Agent + " -g 'metrics are not written' says why; after a change of [metrics]: " + afterChange
	info, err := os.Lstat(p.under(file))
	own := p.ownUnits(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) && own.agent != nil && own.agent.Active == "active":
		return warning(file, look, "it is not there, although %s runs", unitfile.Agent)
	case err != nil:
		return nil
	case time.Since(info.ModTime()) > fresh:
		return warning(file, look, "written last %s: omen-agent run does not run, or cannot write it", info.ModTime().Format(time.RFC3339))
	}
	return nil
}

// exporter is a node_exporter that runs here.
type exporter struct {
	pid, uid, gid int
	folders       []string // that its textfile collector reads
}

// The programs by their names, and what Debian's reads where no flag says it; upstream's
// reads nothing then.
const (
	upstreamExporter = "node_exporter"
	debianExporter   = "prometheus-node-exporter"
	debianFolder     = "/var/lib/prometheus/node-exporter"
)

// exporters looks for them among the processes, by the words of their command lines.
func exporters() []exporter {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var found []exporter
	for _, line := range lines {
		text, err := readBounded(line, 1<<16)
		info, gone := os.Stat(path.Dir(line))
		if err != nil || gone != nil {
			continue
		}
		words := strings.Split(string(bytes.TrimRight(text, "\x00")), "\x00")
		if name := path.Base(words[0]); name != upstreamExporter && name != debianExporter {
			continue
		}
		one := exporter{folders: collected(words)}
		if stat, known := info.Sys().(*syscall.Stat_t); known {
			one.uid, one.gid = int(stat.Uid), int(stat.Gid)
		}
		if _, err := fmt.Sscanf(line, "/proc/%d/", &one.pid); err == nil {
			found = append(found, one)
		}
	}
	return found
}

// collected are the folders that a command line of node_exporter has it read.
func collected(words []string) []string {
	const flag = "--collector.textfile.directory"
	var folders []string
	arguments := words[1:]
	for i, word := range arguments {
		word = "--" + strings.TrimLeft(word, "-")
		switch value, found := strings.CutPrefix(word, flag+"="); {
		case word == "--no-collector.textfile":
			return nil
		case found:
			folders = append(folders, path.Clean(value))
		case word == flag && i+1 < len(arguments):
			folders = append(folders, path.Clean(arguments[i+1]))
		}
	}
	if folders == nil && path.Base(words[0]) == debianExporter {
		return []string{debianFolder}
	}
	return folders
}

// read tells whether some node_exporter reads the file.
func (p *patient) read(file string) []Result {
	folder := path.Dir(file)
	all := exporters()
	if len(all) == 0 {
		return ok(file, "it can be written; no node_exporter is seen here")
	}
	var elsewhere []string
	for _, e := range all {
		if !slices.Contains(e.folders, folder) && !slices.Contains(e.folders, p.under(folder)) {
			elsewhere = append(elsewhere, e.folders...)
			continue
		}
		if err := p.readAs(e, file); err != nil {
			return warning(file, "chmod o+rx "+folder+", and o+x what is above it", "node_exporter cannot read it: %v", err)
		}
		return ok(file, "node_exporter (process %d) reads it", e.pid)
	}
	if len(elsewhere) == 0 {
		return warning(file, "start it with --collector.textfile.directory="+folder, "node_exporter (process %d) reads no text files", all[0].pid)
	}
	return warning(file, "name a file there, or start it with --collector.textfile.directory="+folder,
		"node_exporter (process %d) reads %s", all[0].pid, strings.Join(elsewhere, ", "))
}

// readAs reads the file as the exporter's user, if we are root; one that is not there yet
// is no fault.
func (p *patient) readAs(e exporter, file string) error {
	const maxFigures = 1 << 20
	if os.Geteuid() != 0 {
		return nil
	}
	_, err := service.ReadAs(p.hostRoot(), p.accounts().ByUID(e.uid, e.gid), file, maxFigures)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
