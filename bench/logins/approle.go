// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"

	"funlab.casa/omen/bench/load"
)

// approle has the same callers log in with AppRole, with secret IDs that do not
// wear out, for tokens of a type: "default" is what a role gives that says
// nothing, a service token.
func (s *server) approle(ctx context.Context, name, tokenType string, callers int) (load.Subject, error) {
	path := "auth/approle/role/" + name
	if err := s.write(ctx, path, map[string]any{"token_type": tokenType}); err != nil {
		return load.Subject{}, err
	}
	admin, err := s.leader.Admin()
	if err != nil {
		return load.Subject{}, err
	}
	id, err := admin.Logical().ReadWithContext(ctx, path+"/role-id")
	if err != nil {
		return load.Subject{}, err
	}
	connections := make([]*load.Caller, callers)
	bodies := make([]map[string]any, callers)
	for i := range callers {
		secret, err := admin.Logical().WriteWithContext(ctx, path+"/secret-id", nil)
		if err != nil {
			return load.Subject{}, err
		}
		connections[i] = load.NewCaller(s.leader.Address, s.roots, nil)
		bodies[i] = map[string]any{"role_id": id.Data["role_id"], "secret_id": secret.Data["secret_id"]}
	}
	return load.Subject{Name: name, Login: func(ctx context.Context, i int) error {
		return connections[i].Write(ctx, "auth/approle/login", bodies[i], nil)
	}}, nil
}
