// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// DefaultStateDir is where the agent keeps what it writes.
const DefaultStateDir = "/var/lib/omen-agent"

// outage is how long one service may take to be back. Keylime's verifier gives
// an agent up for good after 62 seconds.
const outage = 55 * time.Second

// lockName is the lock's file in the state directory.
const lockName = "install.lock"

// ErrBusy means that another agent installs on this host now.
var ErrBusy = errors.New("another omen-agent is installing")

// Installer installs sets of certificates. The zero value works on the running
// system; it may be used again and again, but not concurrently.
type Installer struct {
	Root     string        // "" for "/"; every path but a start command is inside it
	StateDir string        // "" for DefaultStateDir
	Set      Set           // zero for KeylimeSet
	Trust    Trust         // CAs beside those of the certificates
	Open     Opener        // gives sealed keys back, for sets that are carried over or gone back to; nil: none can be
	Sign     SignFunc      // signs with keys in the TPM when services are probed; nil: such a probe fails
	Log      *slog.Logger  // nil for none
	Outage   time.Duration // 0 for 55 s: how long one service may take to be back

	held *Lock // see Under; nil: each installation takes the lock
}

func (i *Installer) root() string {
	if i.Root == "" {
		return "/"
	}
	return filepath.Clean(i.Root)
}

func (i *Installer) stateDir() string {
	if i.StateDir == "" {
		return DefaultStateDir
	}
	return filepath.Clean(i.StateDir)
}

func (i *Installer) set() Set {
	if i.Set == (Set{}) {
		return KeylimeSet
	}
	return i.Set
}

func (i *Installer) log() *slog.Logger {
	if i.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return i.Log
}

func (i *Installer) outage() time.Duration {
	if i.Outage == 0 {
		return outage
	}
	return i.Outage
}

func (i *Installer) accounts() account.Book { return account.Of(i.root()) }

// Install writes items as the next generation and makes it current; services
// go on with what they have loaded until Reload. An item without chain and key
// is taken over from the generation before, if it is there.
//
// On an error nothing has changed: what was current still is, or, where the
// folder /etc/keylime/certs was adopted, the same files are. On success the
// change holds the lock until Close.
func (i *Installer) Install(ctx context.Context, items []Item) (*Change, error) {
	lock, err := i.lock()
	if err != nil {
		return nil, i.explainDisk(err)
	}
	c := newChange(i, lock)
	if err := c.install(ctx, items); err != nil {
		return nil, i.explainDisk(errors.Join(err, c.undo(), c.release()))
	}
	i.log().Info("set installed", "generation", c.number, "before", c.previous)
	return c, nil
}

// explainDisk adds what to do about a disk that takes nothing more.
func (i *Installer) explainDisk(err error) error {
	where := i.stateDir() + " and " + i.set().parent()
	if i.onRun(err) {
		where = path.Dir(DefaultRunDir) + ", which is in memory"
	}
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return &remedy.Error{Err: err, Hint: "free some space below " + where + "; the old certificates are in place"}
	case errors.Is(err, syscall.EROFS):
		return &remedy.Error{Err: err, Hint: "make " + where + " writable; where agent.toml has changed: systemctl daemon-reload, then restart omen-agent (a unit of your own needs them in ReadWritePaths=)"}
	}
	return err
}

// onRun reports that it is the folder of plain keys that cannot be written.
func (i *Installer) onRun(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed) && strings.HasPrefix(failed.Path, filepath.Join(i.root(), DefaultRunDir)+"/")
}

// openConfig opens the directory that the set's link stands in, made when missing:
// Keylime's, with its main files in /usr/etc, or an agent that has none, need not
// exist.
func (i *Installer) openConfig() (config *beneath.Dir, made bool, err error) {
	config, err = beneath.Open(i.root(), i.set().parent())
	if !errors.Is(err, fs.ErrNotExist) {
		return config, false, err
	}
	parent, err := beneath.Open(i.root(), filepath.Dir(i.set().parent()))
	if err != nil {
		return nil, false, err
	}
	defer parent.Close()
	if config, err = parent.Make(filepath.Base(i.set().parent()), 0o755, os.Geteuid(), os.Getegid()); err != nil {
		return nil, false, err
	}
	return config, true, parent.Sync()
}
