// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
)

// Config is the [openbao] section of the agent's configuration.
type Config struct {
	Addresses     []string // https://host[:port], in the order of preference
	CAFile        string   // PEM: the CAs that may vouch for a server, and no others
	Namespace     string   // empty for the root namespace
	TLSServerName string   // the name in the server's certificate where it is not the address's host
	AuthPath      string   // mount of the auth method: auth/tpm
}

// Node is one address of the cluster.
type Node struct {
	Address  string // canonical: https://host:port
	Audience string // what a quote for this node is bound to: attest.Audience
}

// timing is how long and how often a call tries. A server that has ten thousand
// hosts at once answers late: whoever asks again meanwhile, or gives up and begins
// anew, makes it later. So an address that shows signs of life gets longer.
type timing struct {
	budget   time.Duration // no request of a call begins later
	attempt  time.Duration // one request, to the last byte of its answer
	proof    time.Duration // the same, for challenge and login: as long as a challenge is good
	patience time.Duration // how long an address that is not seen keeps the next from being asked
	slowness time.Duration // the same, at least, for one that is seen
	spacing  time.Duration // least time between two requests to an address that fails
}

// of is how long one request of a call may take.
func (t timing) of(op string) time.Duration {
	if op == opChallenge || op == opLogin {
		return t.proof
	}
	return t.attempt
}

// ofClient are the times of every client of [New].
var ofClient = timing{
	budget: 30 * time.Second, attempt: 15 * time.Second, proof: time.Minute, spacing: time.Second,
	patience: 2 * time.Second, slowness: 20 * time.Second,
}

// Client speaks to one OpenBao cluster. It is safe for concurrent use.
type Client struct {
	nodes     []Node
	caFile    string
	authPath  string
	api       *api.Client // for the first node; calls are re-addressed, see view
	transport *http.Transport
	timing    timing
	rests     *rests
	clock     *clock
}

const maxAddresses = 16

var (
	pathSegments = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
	roleName     = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
)

// New checks c, reads the CA file and makes a client. It makes no connection.
func New(c Config) (*Client, error) {
	namespace := strings.Trim(c.Namespace, "/")
	if namespace != "" && !isPath(namespace) {
		return nil, fmt.Errorf("namespace %q: want names joined by /", clean(c.Namespace))
	}
	authPath := strings.Trim(c.AuthPath, "/")
	if !isPath(authPath) || !strings.HasPrefix(authPath, "auth/") {
		return nil, fmt.Errorf("auth_path %q: want auth/<mount>", clean(c.AuthPath))
	}
	nodes, err := canonicalNodes(c.Addresses, namespace, authPath)
	if err != nil {
		return nil, err
	}
	roots, err := readCAs(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	transport := newTransport(roots, c.TLSServerName)
	inner, err := newAPIClient(nodes[0].Address, namespace, transport)
	if err != nil {
		return nil, err
	}
	return &Client{
		nodes:     nodes,
		caFile:    c.CAFile,
		authPath:  authPath,
		api:       inner,
		transport: transport,
		timing:    ofClient,
		rests:     new(rests),
		clock:     new(clock),
	}, nil
}

// Close drops idle connections. The client stays usable.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Nodes returns the addresses in the order in which they are tried.
func (c *Client) Nodes() []Node { return slices.Clone(c.nodes) }

func canonicalNodes(addresses []string, namespace, authPath string) ([]Node, error) {
	if len(addresses) == 0 || len(addresses) > maxAddresses {
		return nil, fmt.Errorf("addresses: want 1 to %d", maxAddresses)
	}
	var nodes []Node
	for _, address := range addresses {
		if err := checkAddress(address); err != nil {
			return nil, fmt.Errorf("address %q: %w", clean(address), err)
		}
		audience, err := attest.Audience(address, namespace, authPath)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", clean(address), err)
		}
		if len(audience) > attest.MaxAudience {
			return nil, fmt.Errorf("address %q: audience longer than %d bytes", clean(address), attest.MaxAudience)
		}
		canonical, _, _ := strings.Cut(audience, "|")
		node := Node{Address: canonical, Audience: audience}
		if slices.Contains(nodes, node) {
			return nil, fmt.Errorf("address %q: listed twice", clean(address))
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// checkAddress refuses what [attest.Audience] lets pass and no connection needs.
func checkAddress(address string) error {
	if strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("want printable ASCII")
	}
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("want https://host[:port]")
	}
	if !strings.EqualFold(u.Scheme, "https") {
		return errors.New("want https: there is no connection without TLS")
	}
	if strings.ContainsAny(u.Hostname(), "%|") {
		return errors.New("want a host name or an IP address without zone")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return errors.New("want a port from 1 to 65535")
		}
	}
	return nil
}

// isPath accepts a path of OpenBao whose segments cannot step out of it.
func isPath(path string) bool {
	return len(path) <= 256 && pathSegments.MatchString(path) && !strings.Contains(path, "..")
}

// isRole accepts the name of a PKI role.
func isRole(role string) bool {
	return len(role) <= 128 && roleName.MatchString(role) && !strings.Contains(role, "..")
}
