// SPDX-License-Identifier: Apache-2.0

package story

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"funlab.casa/omen/test/world"
)

func renewSeedSpire(ctx context.Context, s *Story) (string, error) {
	return s.renewOverSeed(ctx, s.Spire, s.Endpoints()[:2])
}

func renewSeedAuth(ctx context.Context, s *Story) (string, error) {
	return s.renewOverSeed(ctx, s.Auth, s.Endpoints()[2:])
}

// renewOverSeed renews on a host and wants the folder of before, byte for
// byte, as generation 0, a link in its place, and the new certificates served.
func (s *Story) renewOverSeed(ctx context.Context, h *world.Host, endpoints []Endpoint) (string, error) {
	before, err := readAll(h, world.CertsDir)
	if err != nil {
		return "", err
	}
	if _, err := Renew(ctx, h, 0); err != nil {
		return "", err
	}
	target, err := h.Readlink(world.CertsDir)
	if err != nil {
		return "", err
	}
	adopted, err := readAll(h, "/var/lib/omen-agent/keylime/gen-000000")
	if err != nil {
		return "", err
	}
	if !maps.EqualFunc(before, adopted, bytes.Equal) {
		return "", fmt.Errorf("%s: generation 0 holds %v, the seed had %v", h.Name, names(adopted), names(before))
	}
	for _, e := range endpoints {
		if err := s.checkServed(ctx, e); err != nil {
			return "", err
		}
	}
	return world.CertsDir + " is a link to " + target, nil
}

func readAll(h *world.Host, dir string) (map[string][]byte, error) {
	entries, err := h.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		if files[entry.Name()], err = h.ReadFile(dir + "/" + entry.Name()); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func names(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }
