// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/helper/locksutil"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// operationPrefix begins the OpenAPI names of all operations.
const operationPrefix = "tpm"

// Version is the version the plugin reports to OpenBao, a semantic version with
// its v; the linker sets it for releases.
var Version = "v0.1.0"

// backend is one mount of the auth method.
type backend struct {
	*framework.Backend

	storage    logical.Storage // for what no request asked for
	challenges *challenges
	store      *store
	trust      trust
	judged     *judged
	seen       sightings
	statistics *statistics
	wallClock  func() time.Time // for certificates; challenges have their own clock
	random     io.Reader

	// records keeps operators' changes apart from each other and from logins, and
	// pins logins of one TPM or AK that write apart from each other: they decide by
	// what is kept in memory, which no transaction guards.
	records sync.RWMutex
	pins    []*locksutil.LockEntry
	learnt  group

	writeTimeout time.Duration

	working places // for hosts' requests that are worked on

	tidied time.Time // when the records were last tidied
}

// Factory makes the backend of one mount; it is what OpenBao calls.
func Factory(ctx context.Context, config *logical.BackendConfig) (logical.Backend, error) {
	b, err := newBackend(config.BackendUUID)
	if err != nil {
		return nil, err
	}
	if err := b.Setup(ctx, config); err != nil {
		return nil, fmt.Errorf("set up backend: %w", err)
	}
	b.storage = config.StorageView
	return b, nil
}

// clean is the end of this instance: no challenge of it can be answered any more,
// and what is only in memory goes to the storage. Where leadership was lost first
// it cannot, and up to a minute of last-seen is lost.
func (b *backend) clean(ctx context.Context) {
	b.challenges.drop()
	if b.onStandby() {
		return
	}
	if err := b.seen.flush(ctx, b.storage); err != nil {
		b.Logger().Warn("last seen not written", "detail", printable(err.Error()))
	}
}

// onStandby reports whether this node must not write. It holds for the life of an
// instance: OpenBao makes another when the node's part changes.
func (b *backend) onStandby() bool {
	return b.System().ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}

func newBackend(mountUUID string) (*backend, error) {
	start := time.Now()
	c, err := newChallenges(rand.Reader, mountUUID, func() time.Duration { return time.Since(start) })
	if err != nil {
		return nil, err
	}
	records, err := newStore()
	if err != nil {
		return nil, err
	}
	endorsements, err := newJudged()
	if err != nil {
		return nil, err
	}
	counts, err := newStatistics(start)
	if err != nil {
		return nil, err
	}
	b := &backend{
		challenges: c,
		store:      records,
		judged:     endorsements,
		statistics: counts,
		wallClock:  time.Now,
		random:     rand.Reader,
		pins:       locksutil.CreateLocks(),
		tidied:     start,

		writeTimeout: writeTimeout,
		working:      places{free: maxWorking},
	}
	b.learnt.change = b.change
	b.Backend = &framework.Backend{
		Help:           strings.TrimSpace(backendHelp),
		BackendType:    logical.TypeCredential,
		RunningVersion: Version,
		AuthRenew:      refuseRenewal,
		Invalidate:     func(_ context.Context, key string) { b.store.drop(key) },
		PeriodicFunc:   b.everyMinute,
		Clean:          b.clean,
		PathsSpecial: &logical.Paths{
			Unauthenticated: []string{challengePath, loginPath},
			SealWrapStorage: []string{configKey, ticketPrefix},
		},
		Paths: b.paths(),
	}
	return b, nil
}

func (b *backend) paths() []*framework.Path {
	return []*framework.Path{
		b.pathConfig(),
		b.pathRoleList(), b.pathRole(),
		b.pathHostList(), b.pathHostsDetailed(), b.pathHost(), b.pathHostAct(), b.pathHostReplace(),
		b.pathInventory(),
		b.pathTombstoneList(), b.pathTombstone(),
		b.pathTicketList(), b.pathTicket(), b.pathNewTicket(),
		b.pathPendingList(), b.pathPending(), b.pathPendingApprove(), b.pathPendingDeny(),
		b.pathBaselineList(), b.pathBaseline(), b.pathBaselinePromote(),
		b.pathVerdict(),
		b.pathStatistics(), b.pathTidy(),
		b.pathChallenge(), b.pathLogin(),
	}
}

// HandleRequest is the one door. A panic behind it becomes the refusal
// internal, and what the framework says about a field of a host's message
// becomes one of our own words: its text quotes the client.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, b.refusal(req, attest.Refuse(attest.RuleInternal, "panic: %v", p))
		}
	}()
	byHost := spokenByHosts(req)
	if byHost {
		if limit := longest(req.Path); room(limit, req.Data) < 0 {
			return nil, b.refusal(req, attest.Refuse(attest.RuleSize, "message of more than %d bytes", limit))
		}
		leave, err := b.working.enter(ctx, req.Path == loginPath)
		if err != nil {
			return nil, b.refusal(req, err)
		}
		defer leave()
	}
	resp, err = b.Backend.HandleRequest(ctx, req)
	if err == nil && resp.IsError() && byHost {
		return nil, b.refusal(req, attest.Refuse(attest.RuleSyntax, "%v", resp.Error()))
	}
	if resp != nil && reflect.ValueOf(*resp).IsZero() {
		return nil, err // a write that had nothing to say
	}
	return resp, err
}

// spokenByHosts reports whether a request is of the protocol, not of an operator.
func spokenByHosts(req *logical.Request) bool {
	return (req.Path == challengePath || req.Path == loginPath) && req.Operation != logical.HelpOperation
}

// longest is the bound of a host's message.
func longest(path string) int {
	if path == loginPath {
		return attest.MaxLoginRequest
	}
	return attest.MaxChallengeRequest
}

// room is what data, as OpenBao took it apart, leaves of limit bytes; less than 0
// is too long. It looks and copies nothing: OpenBao lets 32 MiB in.
func room(limit int, data any) int {
	switch d := data.(type) {
	case string:
		return limit - len(d)
	case []any:
		for i := 0; i < len(d) && limit >= 0; i++ {
			limit = room(limit-1, d[i])
		}
	case map[string]any:
		for key, value := range d {
			if limit = room(limit-len(key), value); limit < 0 {
				break
			}
		}
	}
	return limit
}

// refuseRenewal answers for tokens that are not batch tokens; OpenBao refuses
// those by itself. A host that wants another token proves itself again.
func refuseRenewal(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return logical.ErrorResponse("tokens of this auth method cannot be renewed: log in again"), nil
}

const backendHelp = `
The tpm auth method lets hosts log in by proving their TPM.

A host asks for a challenge with the certificate of its TPM's endorsement key
and answers with a quote that only this TPM can make, over PCRs that the role
names. An operator says with config which TPM vendors to believe and which
addresses hosts use, with role what a login gives, and with host which TPMs
belong to which host.
`
