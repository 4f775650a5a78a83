// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// maxKept is how many records a store keeps in memory: three for each of twenty
// thousand hosts.
const maxKept = 1 << 16

// store keeps what logins have read of a mount's storage in memory, because a
// read through the plugin protocol costs more than all of a login's arithmetic.
//
// It is right because there is one writer: every write of a record goes through
// [backend.change] of the active node's process, which drops what it wrote, and
// [store.drop] is called when OpenBao says that a record changed beneath us. A
// record that is kept is shared: nobody may change it.
type store struct {
	mu      sync.Mutex
	drops   uint64 // how often something was dropped
	records *lru.Cache[string, any]
	// doubtful are records that a write may still change after we gave up waiting
	// for it. They are not kept until a later write of them has ended.
	doubtful map[string]bool
}

func newStore() (*store, error) {
	records, err := lru.New[string, any](maxKept)
	if err != nil {
		return nil, err
	}
	return &store{records: records, doubtful: map[string]bool{}}, nil
}

// look returns what is kept under key, and else the state to give to keep.
func (st *store) look(key string) (record any, drops uint64, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	record, ok = st.records.Get(key)
	return record, st.drops, ok
}

// keep keeps a record that was read after look, unless something was dropped in
// between: then it may be an old one.
func (st *store) keep(key string, record any, drops uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.drops == drops && !st.doubtful[key] {
		st.records.Add(key, record)
	}
}

// drop forgets records that changed.
func (st *store) drop(keys ...string) { st.forget(false, keys) }

// doubt forgets records of which nobody knows whether they still change.
func (st *store) doubt(keys ...string) { st.forget(true, keys) }

func (st *store) forget(doubtful bool, keys []string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.drops++
	for _, key := range keys {
		st.records.Remove(key)
		if doubtful {
			st.doubtful[key] = true
		} else {
			delete(st.doubtful, key)
		}
	}
}

// reader reads records, through the store or, in a transaction, without it.
type reader struct {
	storage logical.Storage
	store   *store // nil: always the storage itself
}

func (b *backend) reader(s logical.Storage) reader { return reader{storage: s, store: b.store} }

// stamped is a record that wants to know by which hash it is stored: another
// hash, another content.
type stamped interface{ stamp(sum [sha256.Size]byte) }

// get reads one record; nil means that there is none. The record is shared. That
// there is none is not kept: strangers ask for what there is not, and would fill
// the store with it.
func get[T any](ctx context.Context, r reader, key string) (*T, error) {
	if r.store == nil {
		return load[T](ctx, r.storage, key)
	}
	kept, drops, ok := r.store.look(key)
	if ok {
		record, _ := kept.(*T) // a key has one type
		return record, nil
	}
	record, err := load[T](ctx, r.storage, key)
	if err != nil || record == nil {
		return nil, err
	}
	r.store.keep(key, record, drops)
	return record, nil
}

// load reads one record from the storage; nil means that there is none.
func load[T any](ctx context.Context, s logical.Storage, key string) (*T, error) {
	entry, err := s.Get(ctx, key)
	if err != nil || entry == nil {
		return nil, err
	}
	record := new(T)
	if err := entry.DecodeJSON(record); err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored %s: %v", key, err)
	}
	if r, ok := any(record).(stamped); ok {
		r.stamp(sha256.Sum256(entry.Value))
	}
	return record, nil
}

func save(ctx context.Context, s logical.Storage, key string, record any) error {
	entry, err := logical.StorageEntryJSON(key, record)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}

// writeTimeout is how long a write may take.
const writeTimeout = 30 * time.Second

// change is the one way in which records of this mount are written: all that do
// writes, or, where the storage has transactions, nothing. What do reads is what is
// stored. It does not end with the caller's patience: OpenBao's storage would go on
// without us, and what we keep would be old for good.
func (b *backend) change(ctx context.Context, s logical.Storage, do func(logical.Storage) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.writeTimeout)
	defer cancel()
	var wrote []string
	err := logical.WithTransaction(ctx, s, func(s logical.Storage) error {
		return do(&noting{Storage: s, wrote: &wrote})
	})
	if err != nil && ctx.Err() != nil {
		b.store.doubt(wrote...)
		return errors.Join(context.DeadlineExceeded, err)
	}
	b.store.drop(wrote...) // also after an error: who knows how far it came
	return err
}

// noting is a storage that notes which records were written.
type noting struct {
	logical.Storage
	wrote *[]string
}

func (n *noting) Put(ctx context.Context, entry *logical.StorageEntry) error {
	*n.wrote = append(*n.wrote, entry.Key)
	return n.Storage.Put(ctx, entry)
}

func (n *noting) Delete(ctx context.Context, key string) error {
	*n.wrote = append(*n.wrote, key)
	return n.Storage.Delete(ctx, key)
}
