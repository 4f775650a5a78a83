// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"
	"fmt"

	"funlab.casa/omen/bench/load"
)

// tpm enrols the fleet and has each host log in once, which pins its key: from
// then on a login is a renewal.
func (s *server) tpm(ctx context.Context, f *fleet) (load.Subject, error) {
	audience := s.leader.Address + "||auth/tpm"
	writes := []struct {
		path string
		data map[string]any
	}{
		{"config", map[string]any{"hardware_roots": f.vendor, "audiences": []string{audience}}},
		{"role/" + role, map[string]any{
			"pcr_bank": "sha256", "pcrs": "0,1,2,3,4,5,6,7", "token_no_default_policy": true,
			"way_in": "allow-list", "ek_classes": "hardware",
		}},
	}
	for _, w := range writes {
		if err := s.write(ctx, "auth/tpm/"+w.path, w.data); err != nil {
			return load.Subject{}, err
		}
	}
	subject := s.hosts("tpm", audience, f)
	for i, tpm := range f.tpms {
		id, err := tpm.ID()
		if err != nil {
			return subject, err
		}
		record := map[string]any{"tpm_ids": []string{string(id)}, "roles": []string{role}}
		if err := s.write(ctx, fmt.Sprintf("auth/tpm/host/bench-%04d", i), record); err != nil {
			return subject, err
		}
		if err := subject.Login(ctx, i); err != nil {
			return subject, fmt.Errorf("first login of host %d: %w", i, err)
		}
	}
	return subject, nil
}

// hosts are the fleet as callers of a method, each with its own connection.
func (s *server) hosts(method, audience string, f *fleet) load.Subject {
	callers := make([]*load.Caller, len(f.tpms))
	for i := range callers {
		callers[i] = load.NewCaller(s.leader.Address, s.roots, nil)
	}
	return load.Subject{Name: method, Login: func(ctx context.Context, i int) error {
		return conversation(ctx, callers[i], "auth/"+method, audience, f.tpms[i])
	}}
}

// null are the same hosts as callers of the plugin that does nothing, once it is
// sure that its bodies have the size of the tpm method's.
func (s *server) null(ctx context.Context, f *fleet) (load.Subject, error) {
	audience := s.leader.Address + "||auth/"
	ours, err := s.traffic(ctx, "tpm", audience+"tpm", f)
	if err != nil {
		return load.Subject{}, err
	}
	theirs, err := s.traffic(ctx, "null", audience+"null", f)
	if err != nil {
		return load.Subject{}, err
	}
	if !near(ours.Sent, theirs.Sent) || !near(ours.Received, theirs.Received) {
		return load.Subject{}, fmt.Errorf("a login of null has bodies of %+v bytes, of tpm %+v: change bench/null", theirs, ours)
	}
	return s.hosts("null", audience+"null", f), nil
}

// traffic is the size of one login's bodies.
func (s *server) traffic(ctx context.Context, method, audience string, f *fleet) (load.Traffic, error) {
	caller := load.NewCaller(s.leader.Address, s.roots, nil)
	defer caller.Close()
	err := conversation(ctx, caller, "auth/"+method, audience, f.tpms[0])
	return caller.Traffic(), err
}

// near reports whether two sizes differ by less than a twentieth.
func near(a, b int) bool { return 20*max(a-b, b-a) < a }
