// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/helper/testhelpers/schema"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// call is one request of an operator or host that works.
type call struct {
	op   logical.Operation
	path string
	data map[string]any
}

// calls are one for each operation of each path, in an order in which all work.
func (f *fleet) calls() []call {
	f.t.Helper()
	read, list, update, remove := logical.ReadOperation, logical.ListOperation, logical.UpdateOperation, logical.DeleteOperation
	host, waiting, denied, gone := f.enrolled("spire"), f.tpm(), f.tpm(), f.enrolled("gone")
	f.waits(waiting, to(byPending))
	f.waits(denied, to(byPending))
	f.must(remove, "host/gone", nil)
	spent := ticketKey(f.anyTicket("fourth"))
	request, err := host.Request(string(byAllowList))
	check(f.t, err)
	_, answer := f.answered(host, to(byAllowList))
	_, ahead := f.answered(host, to(byAllowList))
	return []call{
		{read, "config", nil},
		{list, "role/", nil}, {read, "role/allow-list", nil},
		{update, "role/other", map[string]any{"way_in": "ticket", "pcrs": "7"}}, {remove, "role/other", nil},
		{list, "host/", nil}, {list, "hosts/detailed/", nil}, {read, "host/spire", nil},
		{update, challengePath, body(f.t, request)}, {logical.AliasLookaheadOperation, loginPath, ahead}, {update, loginPath, answer},
		{update, "host/spire", map[string]any{"roles": "allow-list"}}, {update, "host/spire/quarantine", nil},
		{update, "host/spire/replace", map[string]any{"tpm_ids": numbered(1)}}, {remove, "host/spire", nil},
		{update, "inventory", map[string]any{"hosts": text(f.t, inventory(2))}},
		{list, tombstonePrefix, nil}, {read, tombstonePrefix + idOf(f.t, gone), nil}, {remove, tombstonePrefix + idOf(f.t, gone), nil},
		{update, "ticket", map[string]any{"host": "third", "role": "ticket", "any_tpm": true}},
		{list, ticketPrefix, nil}, {read, spent, nil}, {remove, spent, nil},
		{list, pendingPrefix, nil}, {read, pendingPrefix + idOf(f.t, waiting), nil},
		{update, pendingPrefix + idOf(f.t, waiting) + "/approve", map[string]any{"name": "auth", "roles": "pending"}},
		{update, pendingPrefix + idOf(f.t, denied) + "/deny", nil},
		{update, "baseline/fleet", map[string]any{"pcr_digests": strings.Repeat("0", 64)}},
		{list, "baseline/", nil}, {read, "baseline/fleet", nil},
		{update, "tidy", nil}, {read, "statistics", nil}, {remove, "baseline/fleet", nil},
		{update, "config", map[string]any{"pending_limit": 7}}, // last: what was asked before is asked again
		{update, "config", map[string]any{"pending_limit": 7}},
	}
}

func (f *fleet) send(c call) (*logical.Response, error) {
	return f.b.HandleRequest(context.Background(), &logical.Request{
		Operation: c.op, Path: c.path, Data: c.data, Storage: f.s, WrapInfo: f.wrap(c),
		Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
	})
}

func (f *fleet) wrap(c call) *logical.RequestWrapInfo {
	if c.path == "ticket" {
		return &logical.RequestWrapInfo{TTL: time.Minute}
	}
	return nil
}

// judgedElsewhere are paths that need what a boot leaves; their own tests judge
// their answers.
func judgedElsewhere(pattern string) bool {
	return strings.Contains(pattern, verdictPrefix) || strings.Contains(pattern, "/promote")
}

// Every operation of every path answers what its documentation says, and nothing
// that it does not say.
func TestAnswersAreDocumented(t *testing.T) {
	f := newTransactionalFleet(t)
	seen := map[string]bool{}
	for _, c := range f.calls() {
		resp, err := f.send(c)
		if err != nil || resp.IsError() {
			t.Fatalf("%s %s: %v, %v", c.op, c.path, err, resp.Error())
		}
		path := f.b.Route(c.path)
		seen[fmt.Sprint(c.op, path.Pattern)] = true
		t.Run(fmt.Sprint(c.op, " ", path.Pattern), func(t *testing.T) {
			schema.ValidateResponse(t, schema.GetResponseSchema(t, path, c.op), resp, true)
			if fields := schema.GetResponseSchema(t, path, c.op).Fields; resp != nil && len(resp.Data) > len(fields) {
				t.Errorf("%d fields for %d that are documented: %v", len(resp.Data), len(fields), resp.Data)
			}
		})
	}
	for _, path := range f.b.Paths {
		for op := range path.Operations {
			if op == logical.CreateOperation || op == logical.ResolveRoleOperation || judgedElsewhere(path.Pattern) {
				continue
			}
			if !seen[fmt.Sprint(op, path.Pattern)] {
				t.Errorf("%s %s is not called", op, path.Pattern)
			}
		}
	}
}

// A standby sends all that writes to the active node, without a look at it, and
// changes nothing.
func TestWritesGoToTheActiveNode(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		calls := f.calls()
		before := f.content()
		f.standby()
		for _, c := range calls {
			_, err := f.send(c)
			if reads := c.op == logical.ReadOperation || c.op == logical.ListOperation; !reads && !errors.Is(err, logical.ErrReadOnly) {
				t.Errorf("%s %s on a standby: %v", c.op, c.path, err)
			}
		}
		f.wantContent(before)
		for _, path := range f.b.Paths {
			for op, handler := range path.Operations {
				p := handler.Properties()
				writes := op == logical.CreateOperation || op == logical.UpdateOperation || op == logical.DeleteOperation || op == logical.PatchOperation
				if writes && (!p.ForwardPerformanceStandby || !p.ForwardPerformanceSecondary) {
					t.Errorf("%s %s is not forwarded", op, path.Pattern)
				}
			}
		}
	})
}

var operationID = regexp.MustCompile(`^tpm(-[a-z]+)+$`)

// Every operation has a name of its own in the API documentation, and every field
// says what it is.
func TestAPIDocumentation(t *testing.T) {
	f := newTransactionalFleet(t)
	resp := f.must(logical.HelpOperation, "", nil)
	doc, ok := resp.Data["openapi"].(*framework.OASDocument)
	if !ok {
		t.Fatalf("no document in %v", resp.Data)
	}
	names := map[string]string{}
	for path, item := range doc.Paths {
		for method, op := range map[string]*framework.OASOperation{"GET": item.Get, "POST": item.Post, "DELETE": item.Delete} {
			if op == nil {
				continue
			}
			where := method + " " + path
			if other := names[op.OperationID]; other != "" || !operationID.MatchString(op.OperationID) {
				t.Errorf("%s has the name %q, as %q has", where, op.OperationID, other)
			}
			if op.Summary == "" {
				t.Errorf("%s has no summary", where)
			}
			names[op.OperationID] = where
		}
	}
	if len(names) < 35 {
		t.Errorf("%d operations", len(names))
	}
	for _, path := range f.b.Paths {
		if strings.TrimSpace(path.HelpSynopsis) == "" || strings.TrimSpace(path.HelpDescription) == "" {
			t.Errorf("%s has no help", path.Pattern)
		}
		for name, field := range path.Fields {
			if field.Description == "" && !strings.HasPrefix(name, "token_") {
				t.Errorf("%s: %s says nothing", path.Pattern, name)
			}
		}
		for op, handler := range path.Operations {
			if len(handler.Properties().Responses) == 0 && op != logical.ResolveRoleOperation {
				t.Errorf("%s %s has no response", op, path.Pattern)
			}
		}
	}
}

// A field that a message does not have is refused, whatever it holds: nobody reads
// it, and nobody should believe it was read.
func TestUnknownFieldsOfMessages(t *testing.T) {
	f := newTransactionalFleet(t)
	host := f.enrolled("spire")
	for _, field := range []string{"host", "tpm_id", "Role", "ek_class", "role ", "nonce", "\x00", "audience\n"} {
		for _, value := range []any{nil, "", "spire", map[string]any{}, []any{}} {
			request, err := host.Request(string(byAllowList))
			check(t, err)
			data := body(t, request)
			data[field] = value
			_, err = f.request(logical.UpdateOperation, challengePath, data)
			wantRefusal(t, err, attest.RuleSyntax)
			_, answer := f.answered(host, to(byAllowList))
			answer[field] = value
			f.refusedRequest(answer, attest.RuleSyntax)
		}
	}
	// Each message has its own fields.
	request, err := host.Request(string(byAllowList))
	check(t, err)
	_, answer := f.answered(host, to(byAllowList))
	for field, value := range body(t, request) {
		if _, both := answer[field]; both {
			continue
		}
		_, answer := f.answered(host, to(byAllowList))
		answer[field] = value
		f.refusedRequest(answer, attest.RuleSyntax)
	}
	f.gets(host, to(byAllowList))
	if nasty := f.unprintable(); nasty != "" {
		t.Errorf("the log has %q", nasty)
	}
}
