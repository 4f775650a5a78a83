// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"
	"crypto/x509"
	"errors"
	"os"

	"funlab.casa/omen/test/cluster"
	"funlab.casa/omen/test/world"
)

// Plugins are the binaries that the servers run.
type Plugins struct {
	TPM, Null string
}

// A server is a cluster with every auth method that is compared.
type server struct {
	cluster *cluster.Cluster
	leader  *cluster.Node
	roots   *x509.CertPool
}

func start(ctx context.Context, nodes int, o Options) (*server, error) {
	c, err := cluster.Start(ctx, cluster.Config{Nodes: nodes, Parent: o.Parent, LogLevel: "warn", Plugins: []cluster.Plugin{
		{Name: "tpm", Version: world.PluginVersion, Binary: o.Plugins.TPM},
		{Name: "null", Version: "v0.1.0", Binary: o.Plugins.Null},
	}})
	if err != nil {
		return nil, err
	}
	s := &server{cluster: c, roots: x509.NewCertPool()}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func (s *server) prepare(ctx context.Context) (err error) {
	ca, err := os.ReadFile(s.cluster.CAFile)
	if err != nil {
		return err
	}
	s.roots.AppendCertsFromPEM(ca)
	if s.leader, err = s.cluster.Leader(ctx); err != nil {
		return err
	}
	for _, method := range []string{"tpm", "null", "approle", "cert"} {
		if err := s.write(ctx, "sys/auth/"+method, map[string]any{"type": method}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) write(ctx context.Context, path string, data map[string]any) error {
	_, err := s.leader.Write(ctx, path, data)
	return err
}

// Close ends the servers.
func (s *server) Close() error { return s.cluster.Close() }
