// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"

	"funlab.casa/omen/attest"
)

// many is how many hosts a mount must bear.
const many = 10_000

// numbered is a TPM ID that nobody has.
func numbered(n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "TPM %d", n))
	return "sha256-" + hex.EncodeToString(sum[:])
}

// line is one host of an inventory.
type line map[string]any

// inventory are the lines of n hosts.
func inventory(n int) []line {
	lines := make([]line, n)
	for i := range lines {
		lines[i] = line{"name": fmt.Sprintf("host-%05d", i), "tpm_ids": []string{numbered(i)}, "roles": []string{"allow-list"}}
	}
	return lines
}

func text(t testing.TB, lines []line) string {
	t.Helper()
	b, err := json.Marshal(lines)
	check(t, err)
	return string(b)
}

// imported is the answer to an import.
type imported struct {
	created, changed, unchanged []string
	refused                     map[string]any
}

func (i imported) is(created, changed, unchanged string) bool {
	return strings.Join(i.created, ",") == created && strings.Join(i.changed, ",") == changed &&
		strings.Join(i.unchanged, ",") == unchanged && len(i.refused) == 0
}

func (f *fleet) imports(dry bool, lines ...line) imported {
	f.t.Helper()
	resp := f.write("inventory", map[string]any{"hosts": text(f.t, lines), "dry_run": dry})
	if resp.Data["dry_run"] != dry {
		f.t.Errorf("dry_run is %v", resp.Data["dry_run"])
	}
	return imported{
		created: resp.Data["created"].([]string), changed: resp.Data["changed"].([]string),
		unchanged: resp.Data["unchanged"].([]string), refused: resp.Data["refused"].(map[string]any),
	}
}

func TestInventory(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm, other := f.tpm(), f.tpm()
		sum, _ := f.certificateOf(other.EKCertificate)
		f.write("host/old", map[string]any{"tpm_ids": numbered(1), "roles": "allow-list"})
		lines := []line{
			{"name": "spire", "tpm_ids": []string{idOf(t, tpm)}, "roles": []string{"Allow-List"}},
			{"name": "auth", "ek_certificate_sha256": sum, "roles": "allow-list,pending"},
			{"name": "old", "roles": []string{"pending"}},
		}
		before := f.content()
		if got := f.imports(true, lines...); !got.is("spire,auth", "old", "") {
			t.Errorf("dry run: %v", got)
		}
		f.wantContent(before)
		if got := f.imports(false, lines...); !got.is("spire,auth", "old", "") {
			t.Errorf("import: %v", got)
		}
		f.gets(tpm, to(byAllowList))
		f.gets(other, to(byPending))
		if h := f.read("host/old"); h["tpm_ids"].([]attest.TPMID)[0] != attest.TPMID(numbered(1)) || h["roles"].([]string)[0] != "pending" {
			t.Errorf("host is %v", h)
		}

		// Again it changes nothing, whatever the hosts did meanwhile.
		before = f.content()
		if got := f.imports(false, lines...); !got.is("", "", "spire,auth,old") {
			t.Errorf("again: %v", got)
		}
		f.wantContent(before)
	})
}

// Each mistake is told by its line or host, and any of them keeps all from being
// changed.
func TestInventoryMistakes(t *testing.T) {
	f := newTransactionalFleet(t)
	f.write("host/taken", map[string]any{"tpm_ids": numbered(1)})
	f.write("host/gone", map[string]any{"tpm_ids": numbered(2)})
	f.must(logical.DeleteOperation, "host/gone", nil)
	good := line{"name": "good", "tpm_ids": []string{numbered(3)}}
	sum := strings.TrimPrefix(numbered(5), "sha256-")
	before := f.content()
	for name, row := range map[string]struct {
		lines       []line
		where, what string
	}{
		"null":          {[]line{nil, good}, "line 1", "object"},
		"no name":       {[]line{good, {"tpm_ids": numbered(4)}}, "line 2", "name"},
		"bad name":      {[]line{{"name": "a.b", "tpm_ids": numbered(4)}}, "line 1", "name"},
		"unknown field": {[]line{{"name": "new", "tpm_id": numbered(4)}}, "line 1", "tpm_id"},
		"wrong type":    {[]line{{"name": "new", "allow_uncertified_ek": "perhaps"}}, "line 1", "allow_uncertified_ek"},
		"no key":        {[]line{good, {"name": "new"}}, "new", "must name"},
		"bad TPM ID":    {[]line{{"name": "new", "tpm_ids": "sha256-0"}}, "new", "tpm_ids"},
		"taken TPM ID":  {[]line{good, {"name": "new", "tpm_ids": numbered(1)}}, "new", "taken"},
		"buried TPM ID": {[]line{good, {"name": "new", "tpm_ids": numbered(2)}}, "new", "tombstone"},
		"TPM ID twice":  {[]line{good, {"name": "new", "tpm_ids": numbered(3)}}, "new", "twice"},
		"name twice":    {[]line{good, {"name": "good", "tpm_ids": numbered(4)}}, "good", "twice"},
		"certificate twice": {[]line{
			{"name": "new", "ek_certificate_sha256": sum}, {"name": "newer", "ek_certificate_sha256": strings.ToUpper(sum)},
		}, "newer", "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			resp := f.write("inventory", map[string]any{"hosts": text(t, row.lines)})
			refused := resp.Data["refused"].(map[string]any)
			if said, _ := refused[row.where].(string); len(refused) != 1 || !strings.Contains(said, row.what) {
				t.Errorf("refused: %v", refused)
			}
			if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "nothing was changed") {
				t.Errorf("warnings: %q", resp.Warnings)
			}
			f.wantContent(before)
		})
	}
	f.t = t
	one := text(t, []line{good})
	for _, hosts := range []string{"", "spire", "{}", one + "x", one + one, one[1 : len(one)-1]} {
		f.refuses(logical.UpdateOperation, "inventory", map[string]any{"hosts": hosts})
	}
	for _, hosts := range []any{`["spire"]`, `[[]]`, `[1]`, []any{"spire", "auth"}, []any{1}, []any{[]any{}}} {
		resp := f.write("inventory", map[string]any{"hosts": hosts})
		if refused := resp.Data["refused"].(map[string]any); refused["line 1"] != "is not an object" {
			t.Errorf("%v: refused %v", hosts, refused)
		}
	}
	f.wantContent(before)
}

// A short inventory may be the array itself.
func TestInventoryAsArray(t *testing.T) {
	f := newTransactionalFleet(t)
	lines := inventory(3)
	resp := f.write("inventory", body(t, map[string]any{"hosts": lines[:1]}))
	if created := resp.Data["created"].([]string); !slices.Equal(created, []string{"host-00000"}) {
		t.Errorf("created: %v", created)
	}
	resp = f.write("inventory", body(t, map[string]any{"hosts": lines}))
	if created := resp.Data["created"].([]string); !slices.Equal(created, []string{"host-00001", "host-00002"}) {
		t.Errorf("created: %v", created)
	}
	before := f.content()
	if got := f.imports(false, lines...); !got.is("", "", "host-00000,host-00001,host-00002") {
		t.Errorf("as text: %v", got)
	}
	f.wantContent(before)
}

// All mistakes are told at once.
func TestInventoryTellsAllMistakes(t *testing.T) {
	f := newTransactionalFleet(t)
	lines := inventory(50)
	for _, l := range lines {
		l["tpm_ids"] = "nonsense"
	}
	if got := f.imports(false, lines...); len(got.refused) != len(lines) {
		t.Errorf("%d of %d mistakes told", len(got.refused), len(lines))
	}
}

// counting is a transactional storage that notes what each transaction writes.
type counting struct {
	logical.TransactionalStorage
	commits []transaction
}

type transaction struct{ writes, bytes int }

type countingTx struct {
	logical.Transaction
	all *[]transaction
	now transaction
}

func newCounting(t testing.TB) *counting {
	t.Helper()
	physical, err := inmem.NewInmem(nil, nil)
	check(t, err)
	return &counting{TransactionalStorage: logical.NewLogicalStorage(physical).(logical.TransactionalStorage)}
}

func (c *counting) BeginTx(ctx context.Context) (logical.Transaction, error) {
	tx, err := c.TransactionalStorage.BeginTx(ctx)
	return &countingTx{Transaction: tx, all: &c.commits}, err
}

func (c *counting) Put(ctx context.Context, entry *logical.StorageEntry) error {
	c.commits = append(c.commits, transaction{1, len(entry.Value)})
	return c.TransactionalStorage.Put(ctx, entry)
}

func (c *countingTx) Put(ctx context.Context, entry *logical.StorageEntry) error {
	c.now.writes++
	c.now.bytes += len(entry.Key) + len(entry.Value)
	return c.Transaction.Put(ctx, entry)
}

func (c *countingTx) Delete(ctx context.Context, key string) error {
	c.now.writes++
	c.now.bytes += len(key)
	return c.Transaction.Delete(ctx, key)
}

func (c *countingTx) Commit(ctx context.Context) error {
	err := c.Transaction.Commit(ctx)
	if err == nil && c.now.writes > 0 {
		*c.all = append(*c.all, c.now)
	}
	return err
}

// Bounds of one transaction in OpenBao's raft storage: operations by our own
// choice, far below; bytes by its max_entry_size of one megabyte.
const (
	maxTransactionWrites = 500
	maxTransactionBytes  = 512 << 10
)

func wantBounded(t *testing.T, commits []transaction) {
	t.Helper()
	for _, c := range commits {
		if c.writes > maxTransactionWrites || c.bytes > maxTransactionBytes {
			t.Errorf("a transaction of %d writes and %d bytes", c.writes, c.bytes)
		}
	}
}

// Ten thousand hosts fit one request, transactions are bounded, and the same
// again writes nothing.
func TestInventoryOfManyHosts(t *testing.T) {
	t.Parallel()
	s := newCounting(t)
	f := newFleet(t, s)
	lines := inventory(many)
	message, err := json.Marshal(map[string]any{"hosts": text(t, lines)})
	check(t, err)
	if len(message) > 3<<20 {
		t.Errorf("%d hosts are a request of %d bytes", many, len(message))
	}
	s.commits = nil
	if got := f.imports(false, lines...); len(got.created) != many || len(got.refused) != 0 {
		t.Fatalf("%d created, refused: %v", len(got.created), got.refused)
	}
	wantBounded(t, s.commits)
	t.Logf("%d hosts: %d bytes of request, %d transactions", many, len(message), len(s.commits))
	s.commits = nil
	if got := f.imports(false, lines...); len(got.unchanged) != many || len(s.commits) != 0 {
		t.Errorf("again: %d unchanged, %d transactions", len(got.unchanged), len(s.commits))
	}

	// A mistake in the last line keeps all others from being changed.
	for _, l := range lines {
		l["roles"] = "pending"
	}
	lines[many-1]["tpm_ids"] = "nonsense"
	if got := f.imports(false, lines...); len(got.refused) != 1 || len(s.commits) != 0 {
		t.Errorf("refused: %v, %d transactions", got.refused, len(s.commits))
	}
	f.gets(f.enrolled("one-more"), to(byAllowList))
}

// Pages of the lists are complete and bounded.
func TestPagesOfHosts(t *testing.T) {
	t.Parallel()
	f := newTransactionalFleet(t)
	const hosts = 2500
	f.imports(false, inventory(hosts)...)
	for _, row := range []struct{ asked, want int }{{0, maxDetailed}, {-1, maxDetailed}, {5000, maxDetailed}, {700, 700}, {1, 1}} {
		resp := f.must(logical.ListOperation, "hosts/detailed", map[string]any{"limit": row.asked})
		if keys := resp.Data["keys"].([]string); len(keys) != row.want || len(resp.Data["key_info"].(map[string]any)) != row.want {
			t.Errorf("limit %d lists %d", row.asked, len(keys))
		}
	}
	for path, limit := range map[string]int{"hosts/detailed/": 0, "host/": 900} {
		all := map[string]bool{}
		pages, after := 0, ""
		for {
			data := f.must(logical.ListOperation, path, map[string]any{"after": after, "limit": limit}).Data
			keys, _ := data["keys"].([]string)
			if len(keys) == 0 {
				break
			}
			if !slices.IsSorted(keys) || keys[0] <= after {
				t.Errorf("page after %q begins with %q", after, keys[0])
			}
			for _, key := range keys {
				all[key] = true
			}
			pages, after = pages+1, keys[len(keys)-1]
		}
		if len(all) != hosts || pages != 3 {
			t.Errorf("%s: %d hosts on %d pages", path, len(all), pages)
		}
	}
	info := f.must(logical.ListOperation, "hosts/detailed", map[string]any{"limit": 1}).Data["key_info"].(map[string]any)["host-00000"]
	if read := f.read("host/host-00000"); fmt.Sprint(info) != fmt.Sprint(read) || len(slices.Collect(maps.Keys(read))) < 10 {
		t.Errorf("list says %v, read says %v", info, read)
	}
}
