// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/internal/order"
)

func systemChecks() []Check {
	return []Check{
		{
			Name: "units", Area: AreaInstall, root: true, run: checkUnits,
			Asks:   "the unit or command of each service is found, may be restarted, and would come back; which of them cannot wait for the agent at boot",
			Remedy: "systemctl status UNIT; name another with unit or start in [certificate.service]",
		},
		{
			Name: "ports", Area: AreaService, root: true, run: checkPorts,
			Asks:   "each service that runs listens where it is asked",
			Remedy: "correct ip and port in the service's configuration, or probe in [certificate.service]",
		},
		{
			Name: "disk", Area: AreaInstall, run: checkDisk,
			Asks:   "room for another set, and in memory for plain keys",
			Remedy: "free some space, and inodes",
		},
		{
			Name: "memory", Area: AreaInstall, run: checkMemory,
			Asks:   "plain keys of sealed ones go to a file system in memory, which is not swapped out",
			Remedy: "mount a tmpfs on /run; encrypt the swap, or have none (swapoff -a)",
		},
		{
			Name: "state-folder", Area: AreaInstall, run: checkState,
			Asks:   "`/var/lib/omen-agent` is root's, and nobody else may write there",
			Remedy: "chown root: " + install.DefaultStateDir + " && chmod 0711 " + install.DefaultStateDir,
		},
	}
}

func checkUnits(ctx context.Context, p *patient) []Result {
	results := p.ofServices(ctx, "no service is configured", func(s install.Surveyed) []Result {
		switch {
		case s.Missing != nil:
			return p.failed(s.Certificate, s.Missing)
		case s.Startable != nil:
			return p.failed(s.Service, s.Startable)
		case s.Alive != nil:
			return warning(s.Service, p.hint(s.Alive), "%v", s.Alive)
		}
		return ok(s.Service, "runs as %s", s.User)
	})
	for _, early := range order.FindEarly(p.config, p.root) {
		results = append(results, ok(early.Unit, "%s", early)...)
	}
	return results
}

// portPatience is how long a service that runs may take to accept.
const portPatience = 3 * time.Second

func checkPorts(ctx context.Context, p *patient) []Result {
	return p.ofServices(ctx, "no service that listens is configured", func(s install.Surveyed) []Result {
		if s.Missing != nil || s.Alive != nil || s.Address == "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, portPatience)
		defer cancel()
		if err := probe.Ready(ctx, s.Address, nil); err != nil {
			return problem(s.Address, "", "%s runs, and nobody listens there: %v", s.Service, err)
		}
		return ok(s.Address, "%s listens", s.Service)
	})
}

// What a set takes: some certificates of a few kilobytes each, for three generations.
const (
	leastBytes = 4 << 20
	leastNodes = 256
)

func checkDisk(_ context.Context, p *patient) []Result {
	return eachOf([]string{install.DefaultStateDir, install.DefaultRunDir}, "", func(folder string) []Result {
		place := p.existing(folder)
		var stat unix.Statfs_t
		if err := unix.Statfs(p.under(place), &stat); err != nil {
			return problem(place, "", "%v", err)
		}
		left := stat.Bavail * uint64(stat.Bsize)
		switch {
		case stat.Flags&unix.ST_RDONLY != 0:
			return problem(place, "mount it read-write; a unit needs it in ReadWritePaths=", "read-only")
		case left < leastBytes:
			return problem(place, "", "%d KiB left", left>>10)
		case stat.Files > 0 && stat.Ffree < leastNodes:
			return problem(place, "", "%d inodes left", stat.Ffree)
		}
		return ok(place, "%d MiB left", left>>20)
	})
}

// existing is a folder, or the first above it that is there.
func (p *patient) existing(folder string) string {
	for folder != "/" {
		if _, err := os.Stat(p.under(folder)); err == nil {
			break
		}
		folder = path.Dir(folder)
	}
	return folder
}

func checkMemory(_ context.Context, p *patient) []Result {
	if !p.seals() {
		return notApplicable("no key is sealed")
	}
	if err := (&install.Installer{Root: p.root}).InMemory(); err != nil {
		return problem("/run", p.hint(err), "%v", err)
	}
	swaps, err := readBounded(p.under("/proc/swaps"), 1<<16)
	if err == nil && bytes.Count(swaps, []byte("\n")) > 1 {
		return warning("/proc/swaps", "", "there is swap: a plain key may be written to it")
	}
	return ok("/run", "in memory, and no swap")
}

func checkState(_ context.Context, p *patient) []Result {
	info, err := os.Lstat(p.under(install.DefaultStateDir))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return notApplicable("not there: the first renewal makes it")
	case err != nil:
		return problem(install.DefaultStateDir, "", "%v", err)
	case !info.IsDir():
		return problem(install.DefaultStateDir, "", "no folder")
	case uid(info) != 0 && uid(info) != os.Geteuid():
		return problem(install.DefaultStateDir, "", "it belongs to user %d", uid(info))
	case info.Mode().Perm()&0o022 != 0:
		return problem(install.DefaultStateDir, "", "mode %04o: others than root may write there", info.Mode().Perm())
	}
	return ok(install.DefaultStateDir, "mode %04o, root's", info.Mode().Perm())
}
