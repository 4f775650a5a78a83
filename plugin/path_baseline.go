// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest/bootpolicy"
)

// maxEntryTTL bounds how long an entry is good that ends at all.
const maxEntryTTL = 10 * 365 * 24 * time.Hour

func (b *backend) pathBaselineList() *framework.Path {
	return listPath(baselinePrefix, "baselines", "List the baselines.")
}

func (b *backend) pathBaseline() *framework.Path {
	return &framework.Path{
		Pattern:        baselinePrefix + framework.GenericNameRegex("name"),
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "baseline"},
		Fields:         baselineFields(),
		ExistenceCheck: exists(baselinePrefix),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readBaseline, Summary: "Read a baseline.", Responses: ok(baselineResponseFields()),
			},
			logical.CreateOperation: written(b.writeBaseline, "Create a baseline."),
			logical.UpdateOperation: written(b.writeBaseline, "Change a baseline."),
			logical.DeleteOperation: written(b.deleteBaseline, "Delete a baseline."),
		},
		HelpSynopsis:    baselineSynopsis,
		HelpDescription: baselineDescription,
	}
}

// keyFields are the fields that list variables of Secure Boot, by the variable.
var keyFields = map[string]string{"PK": "pk", "KEK": "kek", "db": "db", "dbx": "dbx"}

func baselineFields() map[string]*framework.FieldSchema {
	accepted := func(what string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeCommaStringSlice, Description: "Accepted " + what + ", hex; beside those of the entries."}
	}
	fields := map[string]*framework.FieldSchema{
		"name":        {Type: framework.TypeLowerCaseString, Description: "Name of the baseline."},
		"pcr_digests": accepted("SHA-256 digests over the role's PCRs"),
		"components":  accepted("digests of boot loaders and kernels, in the role's bank"),
		"remove":      {Type: framework.TypeCommaStringSlice, Description: "state_id of entries to remove."},
	}
	for variable, name := range keyFields {
		fields[name] = accepted("SHA-256 of the content of " + variable)
	}
	return fields
}

func baselineResponseFields() map[string]*framework.FieldSchema {
	fields := baselineFields()
	delete(fields, "name")
	delete(fields, "remove")
	fields["entries"] = &framework.FieldSchema{
		Type: framework.TypeSlice, Description: "Captured states: state_id, from, added, expires, state.",
	}
	return fields
}

func (b *backend) readBaseline(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	l, err := load[baseline](ctx, req.Storage, baselinePrefix+d.Get("name").(string))
	if err != nil || l == nil {
		return nil, err
	}
	entries := []map[string]any{}
	for i := range l.Entries {
		entry, err := fields(&l.Entries[i])
		if err != nil {
			return nil, err
		}
		entry["state_id"] = l.Entries[i].State.ID()
		entries = append(entries, entry)
	}
	data := map[string]any{"entries": entries, "pcr_digests": present(l.PCRDigests), "components": present(l.Components)}
	for variable, name := range keyFields {
		data[name] = present(l.Keys[variable])
	}
	return &logical.Response{Data: data}, nil
}

// present is a list that is there also when it is empty.
func present(items []string) []string { return append([]string{}, items...) }

func (b *backend) writeBaseline(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	key := baselinePrefix + d.Get("name").(string)
	return b.changeBaseline(ctx, req, key, func(_ logical.Storage, l *baseline) error {
		l.set(d)
		return nil
	})
}

// changeBaseline changes one baseline, or makes it.
func (b *backend) changeBaseline(
	ctx context.Context, req *logical.Request, key string, do func(logical.Storage, *baseline) error,
) (*logical.Response, error) {
	if len(key) > len(baselinePrefix)+maxRoleName {
		return logical.ErrorResponse("a baseline's name has at most %d bytes", maxRoleName), nil
	}
	b.records.Lock()
	defer b.records.Unlock()
	return answer(b.change(ctx, req.Storage, func(s logical.Storage) error {
		l, err := load[baseline](ctx, s, key)
		if err != nil {
			return err
		}
		if l == nil {
			l = &baseline{Baseline: bootpolicy.Baseline{Keys: map[string][]string{}}}
		}
		if err := do(s, l); err != nil {
			return err
		}
		if err := l.Check(); err != nil {
			return mistake(err.Error())
		}
		return save(ctx, s, key, l)
	}))
}

// set takes over the fields that a write names.
func (l *baseline) set(d *framework.FieldData) {
	lower := func(v any) []string {
		digests := []string{}
		for _, text := range v.([]string) {
			digests = append(digests, strings.ToLower(text))
		}
		return digests
	}
	if v, ok := d.GetOk("pcr_digests"); ok {
		l.PCRDigests = lower(v)
	}
	if v, ok := d.GetOk("components"); ok {
		l.Components = lower(v)
	}
	for variable, name := range keyFields {
		if v, ok := d.GetOk(name); ok {
			if l.Keys == nil {
				l.Keys = map[string][]string{}
			}
			l.Keys[variable] = lower(v)
		}
	}
	if v, ok := d.GetOk("remove"); ok {
		remove := lower(v)
		l.Entries = slices.DeleteFunc(l.Entries, func(e bootpolicy.Entry) bool { return slices.Contains(remove, e.State.ID()) })
	}
}

func (b *backend) deleteBaseline(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	b.records.Lock()
	defer b.records.Unlock()
	var users []string
	resp, err := answer(b.change(ctx, req.Storage, func(s logical.Storage) (err error) {
		if users, err = rolesWith(ctx, s, name); err != nil {
			return err
		}
		return s.Delete(ctx, baselinePrefix+name)
	}))
	if err == nil && len(users) > 0 {
		resp.AddWarning("role " + strings.Join(users, ", ") + " names baseline " + name + ", which accepts nothing now")
	}
	return resp, err
}

// rolesWith are the roles that name a baseline.
func rolesWith(ctx context.Context, s logical.Storage, baseline string) (users []string, err error) {
	names, err := s.ListPage(ctx, rolePrefix, "", -1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := load[role](ctx, s, rolePrefix+name)
		if err != nil {
			return nil, err
		}
		if r != nil && slices.Contains(r.Baselines, baseline) {
			users = append(users, name)
		}
	}
	return users, nil
}

func (b *backend) pathBaselinePromote() *framework.Path {
	return &framework.Path{
		Pattern: baselinePrefix + framework.GenericNameRegex("name") + "/promote",
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationVerb: "promote", OperationSuffix: "baseline",
		},
		Fields: map[string]*framework.FieldSchema{
			"name":     {Type: framework.TypeLowerCaseString, Description: "Name of the baseline; it is made when it is not there."},
			"host":     {Type: framework.TypeString, Required: true, Description: "Host whose state to take over."},
			"role":     {Type: framework.TypeLowerCaseString, Required: true, Description: "Role of the verdict that shows it."},
			"state_id": {Type: framework.TypeString, Required: true, Description: "state_id that the verdict shows. Another one now: refused."},
			"ttl":      {Type: framework.TypeDurationSecond, Description: "How long the entry is good, ten years at most; 0: until it is removed."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: written(b.promote, "Take over the state of a host as an entry."),
		},
		HelpSynopsis:    promoteSynopsis,
		HelpDescription: baselineDescription,
	}
}

func (b *backend) promote(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	from, want := d.Get("host").(string), strings.ToLower(d.Get("state_id").(string))
	ttl, good := seconds(d.Get("ttl").(int), maxEntryTTL)
	if !good {
		return logical.ErrorResponse("ttl is 0 to %s", maxEntryTTL), nil
	}
	key := baselinePrefix + d.Get("name").(string)
	return b.changeBaseline(ctx, req, key, func(s logical.Storage, l *baseline) error {
		shown, err := load[report](ctx, s, verdictPrefix+from+"/"+d.Get("role").(string))
		if err != nil {
			return err
		}
		if shown == nil || shown.State == nil {
			return mistake("there is no verdict about that host and role: it has to log in first")
		}
		if shown.State.ID() != want {
			return mistake("the host's state is another one now: read its verdict again")
		}
		now := b.wallClock().UTC().Truncate(time.Second)
		entry := bootpolicy.Entry{State: *shown.State, From: from, Added: now}
		if ttl > 0 {
			entry.Expires = now.Add(ttl)
		}
		l.Entries = slices.DeleteFunc(l.Entries, func(e bootpolicy.Entry) bool { return e.State.ID() == want })
		l.Entries = append(l.Entries, entry)
		return nil
	})
}

const (
	baselineSynopsis    = "Say what machines may have booted."
	promoteSynopsis     = "Take over the state of a host as an entry of a baseline."
	baselineDescription = `
A baseline has entries, which are states of machines taken over from a host's
verdict by the exact state_id that was shown, each good for its lifetime; and lists
of digests written by hand. A role names the baselines it goes by; what any of them
accepts is accepted.
`
)
