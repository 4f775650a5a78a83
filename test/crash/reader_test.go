// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/keylime"
)

// switches is how often the set changes under the readers.
const switches = 1000

// TestReaderThatOpensTheFolderOnce has two kinds of readers load a pair while the
// set changes a thousand times. One opens the folder, and both files in it: it
// never sees a mix. The other opens both files by their paths through the link:
// between its two calls the set can change, and how often that happened is
// measured and not judged. A program that reloads from the link needs one file
// with both in it.
func TestReaderThatOpensTheFolderOnce(t *testing.T) {
	h, orders := switching(t)
	if r := once(append([]string{program("once")}, orders[0])); r.err != nil {
		t.Fatal(r.err)
	}
	var done atomic.Bool
	var group sync.WaitGroup
	careful, careless := &reader{load: h.loadFromFolder}, &reader{load: h.loadByPaths}
	for _, r := range []*reader{careful, careless} {
		group.Go(func() { r.read(t, &done) })
	}
	count := 0
	for ; count == 0 || careful.whole.Load() < switches && !t.Failed(); count += switches { // on a busy machine readers may be late
		if r := once(append([]string{program("once")}, orders...)); r.err != nil {
			t.Error(r.err)
		}
	}
	done.Store(true)
	group.Wait()
	t.Logf("%d switches; folder opened once: %d pairs, %d mixed, %d times the folder was gone; two opens through the link: %d pairs, %d mixed, %d times a file was gone",
		count, careful.whole.Load(), careful.mixed, careful.gone, careless.whole.Load(), careless.mixed, careless.gone)
	if careful.mixed > 0 {
		t.Errorf("%d mixed pairs", careful.mixed)
	}
}

// switching is a host, and the files of the orders that it gets.
func switching(t *testing.T) (*host, []string) {
	t.Helper()
	g := scenario{name: "switches"}.stage(t)
	h, err := g.bare(filepath.Join(space(), t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	sets := []*set{g.next, g.last, g.fresh("third set")}
	var orders []string
	for at := range switches {
		path := fmt.Sprintf("%s.order-%d", h.root, at%len(sets))
		if at < len(sets) {
			if err := h.order(sets[at], Install).write(path); err != nil {
				t.Fatal(err)
			}
		}
		orders = append(orders, path)
	}
	return h, orders
}

type reader struct {
	load        func() (certificate, key []byte, err error)
	whole       atomic.Int64
	mixed, gone int
}

func (r *reader) read(t *testing.T, done *atomic.Bool) {
	for !done.Load() {
		certificate, key, err := r.load()
		switch {
		case errors.Is(err, fs.ErrNotExist): // two sets later: read again
			r.gone++
			continue
		case err != nil:
			t.Error(err)
			return
		}
		if _, err := tls.X509KeyPair(certificate, key); err != nil {
			r.mixed++
			continue
		}
		r.whole.Add(1)
	}
}

func (h *host) loadFromFolder() (certificate, key []byte, err error) {
	folder, err := h.open(keylime.CertsDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil, err
	}
	defer folder.Close()
	if certificate, err = readAt(folder, "tenant.crt"); err != nil {
		return nil, nil, err
	}
	key, err = readAt(folder, "tenant.key")
	return certificate, key, err
}

func readAt(folder *os.File, name string) ([]byte, error) {
	fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	return io.ReadAll(file)
}

func (h *host) loadByPaths() (certificate, key []byte, err error) {
	if certificate, _, err = h.read(keylime.CertsDir + "/tenant.crt"); err != nil {
		return nil, nil, err
	}
	key, _, err = h.read(keylime.CertsDir + "/tenant.key")
	return certificate, key, err
}
