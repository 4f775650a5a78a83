// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/internal/bao"
)

func serverChecks() []Check {
	return []Check{
		{
			Name: "openbao-dns", Area: AreaServer, run: checkDNS,
			Asks:   "the name in each address of `[openbao]` resolves",
			Remedy: "correct the address, /etc/resolv.conf or /etc/hosts; or give an IP address that is in the server's certificate",
		},
		{
			Name: "openbao-reachable", Area: AreaServer, run: checkReachable,
			Asks:   "each address takes a connection",
			Remedy: "check the address, the route and firewalls between, and that OpenBao listens there",
		},
		{
			Name: "openbao-tls", Area: AreaServer, needs: []string{"openbao-reachable"}, run: checkTLS,
			Asks:   "each address shows a certificate that `ca_file` vouches for, for its name, by TLS 1.3",
			Remedy: "put the CA behind OpenBao's certificate into ca_file, by a way you trust",
		},
		{
			Name: "openbao-seal", Area: AreaServer, needs: []string{"openbao-tls"}, run: checkSeal,
			Asks:   "each node is initialised and unsealed, and one is active",
			Remedy: "bao operator unseal on that node",
		},
		{
			Name: "openbao-version", Area: AreaServer, needs: []string{"openbao-tls"}, run: checkVersion,
			Asks:   "OpenBao is 2.7 or newer: older ones know less of the PKI roles that keep hosts apart",
			Remedy: "upgrade OpenBao, standbys first",
		},
		{
			Name: "clock", Area: AreaServer, needs: []string{"openbao-tls"}, run: checkClock,
			Asks:   "this host and OpenBao agree on the time: certificates begin a minute before it",
			Remedy: "let both follow a time server (timedatectl set-ntp true)",
		},
	}
}

// addresses are those of the configuration that are sound.
func (p *patient) addresses() []*url.URL {
	var all []*url.URL
	for _, address := range p.config.OpenBao.Addresses {
		if u, err := url.Parse(address); err == nil {
			all = append(all, u)
		}
	}
	return all
}

const noAddress = "agent.toml names no address of OpenBao that can be used"

func checkDNS(ctx context.Context, p *patient) []Result {
	return eachOf(p.addresses(), noAddress, func(u *url.URL) []Result {
		name := u.Hostname()
		if net.ParseIP(name) != nil {
			return ok(u.Host, "an IP address")
		}
		found, err := new(net.Resolver).LookupHost(ctx, name)
		if err != nil {
			return problem(u.Host, "", "%v", err)
		}
		return ok(u.Host, "%s", strings.Join(found, ", "))
	})
}

// dialPatience is how long one address may take.
const dialPatience = 5 * time.Second

func checkReachable(ctx context.Context, p *patient) []Result {
	return eachOf(p.addresses(), noAddress, func(u *url.URL) []Result {
		port := u.Port()
		if port == "" {
			port = "443"
		}
		ctx, cancel := context.WithTimeout(ctx, dialPatience)
		defer cancel()
		began := time.Now()
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
		if err != nil {
			return problem(u.Host, "", "%v", err)
		}
		connection.Close()
		return ok(u.Host, "connected in %s", time.Since(began).Round(time.Millisecond))
	})
}

// ofNodes is a check of what each node says of itself; one that says nothing is told of
// by openbao-tls.
func (p *patient) ofNodes(ctx context.Context, check func(bao.Health) []Result) []Result {
	answered := slices.DeleteFunc(slices.Clone(p.healths(ctx)), func(h bao.Health) bool { return h.Err != nil })
	return eachOf(answered, "no node answers", check)
}

func checkTLS(ctx context.Context, p *patient) []Result {
	return eachOf(p.healths(ctx), "agent.toml names no ca_file that can be used", func(h bao.Health) []Result {
		if h.Err != nil {
			seen := strings.TrimPrefix(h.Err.Error(), h.Node.Address+": ")
			return problem(h.Node.Address, p.hint(h.Err), "%s", seen)
		}
		return ok(h.Node.Address, "its certificate is good")
	})
}

func checkSeal(ctx context.Context, p *patient) []Result {
	active := false
	results := p.ofNodes(ctx, func(h bao.Health) []Result {
		active = active || !h.Standby && !h.Sealed && h.Initialized
		switch {
		case !h.Initialized:
			return problem(h.Node.Address, "bao operator init -address="+h.Node.Address+", once for the cluster", "not initialised")
		case h.Sealed:
			return problem(h.Node.Address, "bao operator unseal -address="+h.Node.Address+", once for each share of the key; certificates that are installed serve on meanwhile", "sealed")
		case h.Standby:
			return ok(h.Node.Address, "standby")
		}
		return ok(h.Node.Address, "active")
	})
	if !active && slices.ContainsFunc(results, func(r Result) bool { return r.Status == OK }) {
		return append(results, warning("", "list the address of every node under addresses", "no node that is listed is active")...)
	}
	return results
}

func checkVersion(ctx context.Context, p *patient) []Result {
	return p.ofNodes(ctx, func(h bao.Health) []Result {
		var major, minor int
		if _, err := fmt.Sscanf(strings.TrimPrefix(h.Version, "v"), "%d.%d", &major, &minor); err != nil {
			return warning(h.Node.Address, "", "an OpenBao without a version (%q)", h.Version)
		}
		if major < 2 || major == 2 && minor < 7 {
			return warning(h.Node.Address, "", "OpenBao %s", h.Version)
		}
		return ok(h.Node.Address, "OpenBao %s", h.Version)
	})
}

// What clocks may differ by: OpenBao has certificates begin half a minute before its
// time, or a minute where docs/operations.md was followed.
const (
	skewWarning = 5 * time.Second
	skewProblem = 30 * time.Second
)

func checkClock(ctx context.Context, p *patient) []Result {
	return p.ofNodes(ctx, func(h bao.Health) []Result {
		offset := h.ClockOffset.Abs()
		switch {
		case offset >= skewProblem:
			return problem(h.Node.Address, "", "this host's clock and OpenBao's differ by %s", offset)
		case offset >= skewWarning:
			return warning(h.Node.Address, "", "this host's clock and OpenBao's differ by %s", offset)
		}
		return ok(h.Node.Address, "within %s", skewWarning)
	})
}
