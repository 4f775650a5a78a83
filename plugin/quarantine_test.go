// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// From the answer to quarantine on there is no token, whatever is under way.
func TestQuarantineIsAtOnce(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		bodies := make(chan map[string]any, 100)
		for range cap(bodies) {
			_, data := f.answered(tpm, to(byAllowList))
			bodies <- data
		}
		close(bodies)
		var quarantined atomic.Bool
		var in, late atomic.Int32
		half := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for data := range bodies {
					after := quarantined.Load()
					_, err := f.request(logical.UpdateOperation, loginPath, data)
					if err == nil && in.Add(1) == 20 {
						close(half)
					}
					if err == nil && after {
						late.Add(1)
					}
				}
			})
		}
		<-half
		f.write("host/spire/quarantine", nil)
		quarantined.Store(true)
		wg.Wait()
		if late.Load() != 0 {
			t.Errorf("%d tokens after the quarantine", late.Load())
		}
		f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
	})
}

// gated is a storage in which a login that has read the host's record waits, for a
// moment at least, until an operator has heard the answer to a change.
type gated struct {
	logical.Storage
	key              string
	reading, changed chan struct{}
	overtaken        atomic.Bool
}

func (g *gated) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if key == g.key {
		close(g.reading)
		select {
		case <-g.changed:
			g.overtaken.Store(true)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return g.Storage.Get(ctx, key)
}

// A login that is being decided keeps the quarantine waiting: when the operator
// hears the answer, no login that read the record before can still get in.
func TestQuarantineWaitsForDecisions(t *testing.T) {
	f := newFleet(t, new(logical.InmemStorage))
	tpm := f.enrolled("spire")
	_, data := f.answered(tpm, to(byAllowList))
	f.b.store.drop(pinPrefix + idOf(t, tpm)) // read last, after the record
	plain := f.s
	g := &gated{Storage: plain, key: pinPrefix + idOf(t, tpm), reading: make(chan struct{}), changed: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := f.b.HandleRequest(context.Background(), &logical.Request{
			Operation: logical.UpdateOperation, Path: loginPath, Data: data, Storage: g,
			Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
		})
		if err != nil {
			t.Errorf("refused: %v", err)
		}
	})
	<-g.reading
	f.write("host/spire/quarantine", nil)
	close(g.changed)
	wg.Wait()
	if g.overtaken.Load() {
		t.Error("the quarantine was answered while a login went on by the record before it")
	}
	f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
}
