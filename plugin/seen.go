// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// sighting is what the last login of a TPM said about its time.
type sighting struct {
	at             int64  // Unix seconds, by our clock
	clock          uint64 // milliseconds, by the TPM's
	reset, restart uint32
	// admitted is when it was, on the challenges' clock; 0 for one that was read
	// from the storage.
	admitted time.Duration
}

// sightings remember when each TPM was last let in, without a write for each
// login: they are kept in memory and go to the storage in bulk, once a minute
// and at the end. A node that dies takes at most that minute with it: last_seen
// is then a minute old, and a TPM clock that fell within that minute is not
// noticed.
type sightings struct {
	mu     sync.Mutex
	shards [seenShards]seenShard
	writes uint64 // transactions that went to the storage
}

type seenShard struct {
	loaded, dirty bool
	byTPM         map[[32]byte]sighting
}

const (
	seenShards  = 64
	seenSize    = 32 + 8 + 8 + 4 + 4 // bytes of a stored sighting
	maxSeenBulk = 256 << 10          // bytes of one transaction: OpenBao takes a megabyte
)

func tpmBytes(id attest.TPMID) (b [32]byte) {
	_, _ = hex.Decode(b[:], []byte(strings.TrimPrefix(string(id), "sha256-"))) // an ID of ours: checked when it came in
	return b
}

func (s *sightings) shard(tpm [32]byte) *seenShard { return &s.shards[tpm[0]%seenShards] }

// last is the last sighting of a TPM; ok says whether there is one. It reads the
// storage the first time only.
func (s *sightings) last(ctx context.Context, storage logical.Storage, id attest.TPMID) (last sighting, ok bool, err error) {
	tpm := tpmBytes(id)
	if err := s.ensure(ctx, storage, int(tpm[0]%seenShards)); err != nil {
		return sighting{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last = s.shard(tpm).byTPM[tpm]
	return last, last != sighting{}, nil
}

// note remembers a login. Of two that overlap the later reading of the TPM's
// clock stays, and the moment it was let in with it: an older one does not excuse
// the next. The shard was loaded by last.
func (s *sightings) note(id attest.TPMID, seen sighting) {
	tpm := tpmBytes(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	shard := s.shard(tpm)
	if before, ok := shard.byTPM[tpm]; ok && before.reset == seen.reset && before.restart == seen.restart {
		if seen.clock < before.clock {
			seen.clock, seen.admitted = before.clock, before.admitted
		}
	}
	if shard.byTPM == nil {
		shard.byTPM = map[[32]byte]sighting{}
	}
	shard.byTPM[tpm], shard.dirty = seen, true
}

// forget drops a TPM.
func (s *sightings) forget(id attest.TPMID) {
	tpm := tpmBytes(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	shard := s.shard(tpm)
	if shard.byTPM == nil {
		shard.byTPM = map[[32]byte]sighting{}
	}
	// A zero sighting, not a missing one: the shard may not be loaded yet.
	shard.byTPM[tpm], shard.dirty = sighting{}, true
}

func seenKey(shard int) string { return fmt.Sprintf("%s%02x", seenPrefix, shard) }

// ensure reads a shard that was not read yet, and keeps nobody waiting meanwhile.
// What memory knows is newer.
func (s *sightings) ensure(ctx context.Context, storage logical.Storage, n int) error {
	s.mu.Lock()
	loaded := s.shards[n].loaded
	s.mu.Unlock()
	if loaded {
		return nil
	}
	entry, err := storage.Get(ctx, seenKey(n))
	if err != nil {
		return err
	}
	stored := map[[32]byte]sighting{}
	if entry != nil {
		stored = parseSightings(entry.Value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	shard := &s.shards[n]
	if shard.loaded {
		return nil
	}
	for tpm, seen := range shard.byTPM {
		stored[tpm] = seen
	}
	shard.byTPM, shard.loaded = stored, true
	return nil
}

// flush writes the shards that changed, in as few transactions as OpenBao's
// bounds allow. Logins go on meanwhile.
func (s *sightings) flush(ctx context.Context, storage logical.Storage) error {
	changed, err := s.changed(ctx, storage)
	if err != nil {
		return err
	}
	for len(changed) > 0 {
		n, size := 0, 0
		for n < len(changed) && (n == 0 || size+len(changed[n].value) <= maxSeenBulk) {
			size += len(changed[n].value)
			n++
		}
		if err := s.write(ctx, storage, changed[:n]); err != nil {
			s.again(changed)
			return err
		}
		changed = changed[n:]
	}
	return nil
}

// seenBytes is a shard as it is stored.
type seenBytes struct {
	shard int
	value []byte
}

// changed takes a copy of the shards that changed and holds them clean.
func (s *sightings) changed(ctx context.Context, storage logical.Storage) ([]seenBytes, error) {
	for n := range s.shards {
		if !s.isDirty(n) {
			continue
		}
		if err := s.ensure(ctx, storage, n); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []seenBytes
	for n := range s.shards {
		if !s.shards[n].dirty || !s.shards[n].loaded {
			continue
		}
		all = append(all, seenBytes{shard: n, value: s.shards[n].bytes()})
	}
	for _, b := range all {
		s.shards[b.shard].dirty = false
	}
	return all, nil
}

func (s *sightings) isDirty(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[n].dirty
}

// again marks shards whose write did not succeed.
func (s *sightings) again(shards []seenBytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range shards {
		s.shards[b.shard].dirty = true
	}
}

func (s *sightings) write(ctx context.Context, storage logical.Storage, shards []seenBytes) error {
	err := logical.WithTransaction(ctx, storage, func(storage logical.Storage) error {
		for _, b := range shards {
			if err := storage.Put(ctx, &logical.StorageEntry{Key: seenKey(b.shard), Value: b.value}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.mu.Lock()
		s.writes++
		s.mu.Unlock()
	}
	return err
}

// bulkWrites is how many transactions have gone to the storage.
func (s *sightings) bulkWrites() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

func (s *seenShard) bytes() []byte {
	b := make([]byte, 0, len(s.byTPM)*seenSize)
	for tpm, seen := range s.byTPM {
		if seen == (sighting{}) {
			continue
		}
		b = append(b, tpm[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(seen.at))
		b = binary.BigEndian.AppendUint64(b, seen.clock)
		b = binary.BigEndian.AppendUint32(b, seen.reset)
		b = binary.BigEndian.AppendUint32(b, seen.restart)
	}
	return b
}

// parseSightings reads what bytes wrote; a piece at the end that is no sighting
// is none.
func parseSightings(b []byte) map[[32]byte]sighting {
	all := map[[32]byte]sighting{}
	for ; len(b) >= seenSize; b = b[seenSize:] {
		all[[32]byte(b)] = sighting{
			at:      int64(binary.BigEndian.Uint64(b[32:])),
			clock:   binary.BigEndian.Uint64(b[40:]),
			reset:   binary.BigEndian.Uint32(b[48:]),
			restart: binary.BigEndian.Uint32(b[52:]),
		}
	}
	return all
}
