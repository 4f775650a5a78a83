// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
)

const (
	opChallenge = "challenge"
	opLogin     = "login"
	opLookup    = "lookup"
	opUnwrap    = "unwrap"
	opSign      = "sign"
	opHealth    = "health"
)

// Session is what a login gives.
type Session struct {
	Token      Token
	Host       string            // the server's name for this host
	TTL        time.Duration     // of the token, from the login on
	Metadata   map[string]string // host, role, ...; printable
	Policies   []string          // that the token has; printable
	Node       Node              // where the login was
	RenewAfter time.Duration     // when the server would like to see this host again; 0 if it does not say
}

// Signed is the data of an answer to pki/sign/:role, as OpenBao names it: PEM
// texts, without a final newline, not judged.
type Signed struct {
	Certificate string   `json:"certificate"`
	IssuingCA   string   `json:"issuing_ca"`
	CAChain     []string `json:"ca_chain"`
}

// Challenge asks for a challenge, in passes over the addresses: no request begins
// later than after 30 seconds, and none is waited for longer than a challenge is
// good. The Node is the one that answered: the quote must be made for its
// Audience and the login go there. Every failure is an [*Error], but for a
// request that [attest.ChallengeRequest.Check] refuses.
func (c *Client) Challenge(ctx context.Context, request attest.ChallengeRequest) (*attest.Challenge, Node, error) {
	if err := request.Check(); err != nil {
		return nil, Node{}, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, Node{}, fmt.Errorf("encode challenge request: %w", err)
	}
	type answered struct {
		challenge *attest.Challenge
		node      Node
	}
	got, err := overNodes(ctx, c.newPass(opChallenge, c.nodes), func(ctx context.Context, node Node) (answered, *Error) {
		call := c.call(opChallenge, node)
		secret, err := call.write(ctx, c.authPath+"/challenge", body, Token{})
		if err != nil {
			return answered{}, err
		}
		challenge := new(attest.Challenge)
		if err := decodeData(secret, challenge); err != nil {
			return answered{}, call.garbage(err)
		}
		if err := challenge.Check(); err != nil {
			return answered{}, call.garbage(err)
		}
		return answered{challenge, node}, nil
	})
	return got.challenge, got.node, err
}

// Login sends the proof to the node that made the challenge, once. A failure is
// an [*Error]; where its StartOver says so, the whole conversation may be tried
// again, beginning with a new challenge.
func (c *Client) Login(ctx context.Context, node Node, request attest.LoginRequest) (*Session, error) {
	if err := request.Check(); err != nil {
		return nil, err
	}
	if !slices.Contains(c.nodes, node) || request.Audience != node.Audience {
		return nil, errors.New("login is for another node than the one that made the challenge")
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode login request: %w", err)
	}
	defer clear(body) // it may hold a ticket
	session, failure := once(ctx, c, opLogin, node, func(ctx context.Context, call *call) (*Session, *Error) {
		secret, failure := call.write(ctx, c.authPath+"/login", body, Token{})
		if failure != nil {
			return nil, failure
		}
		session, err := newSession(secret, node)
		if err != nil {
			return nil, call.garbage(err)
		}
		return session, nil
	})
	if failure != nil {
		return nil, failure
	}
	return session, nil
}

// once asks one node one time. If it may answer better later, it rests as any
// other that failed.
func once[T any](ctx context.Context, c *Client, op string, node Node, ask func(context.Context, *call) (T, *Error)) (T, *Error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timing.of(op))
	defer cancel()
	result, failure := ask(ctx, c.call(op, node))
	if failure != nil && failure.Retryable() {
		c.rests.set(node, started.Add(max(c.timing.spacing, failure.RetryAfter)), failure)
	}
	return result, failure
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// newSession reads the auth block of a login's answer.
func newSession(secret *api.Secret, node Node) (*Session, error) {
	auth := secret.Auth
	if auth == nil {
		return nil, errors.New("no auth block in the answer")
	}
	token, err := newToken(auth.ClientToken)
	if err != nil {
		return nil, err
	}
	if auth.LeaseDuration <= 0 {
		return nil, errors.New("a token without a lifetime")
	}
	if len(auth.Metadata) > 64 || !hostName.MatchString(auth.Metadata["host"]) {
		return nil, errors.New("no host name in the metadata")
	}
	metadata := map[string]string{}
	for key, value := range auth.Metadata {
		metadata[clean(key)] = clean(value)
	}
	var policies []string
	for _, name := range auth.Policies {
		policies = append(policies, clean(name))
	}
	return &Session{
		Token:      token,
		Host:       auth.Metadata["host"],
		TTL:        time.Duration(auth.LeaseDuration) * time.Second,
		Metadata:   metadata,
		Policies:   policies,
		Node:       node,
		RenewAfter: renewAfter(secret.Data),
	}, nil
}

// renewAfter reads the hint beside the auth block, in whole seconds. It is no
// more than a hint: what is no number of seconds within ten years is none.
func renewAfter(data map[string]any) time.Duration {
	number, ok := data["renew_after"].(json.Number)
	if !ok {
		return 0
	}
	seconds, err := strconv.ParseUint(number.String(), 10, 32)
	if err != nil || seconds > 10*365*24*3600 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// Sign has the PKI mount at path sign a PEM request under role, for ttl (whole
// seconds). It passes over the addresses as Challenge does, beginning with the
// one of the login. The parameters are csr, ttl and format, nothing else: the
// names are in the request and the role decides on them.
func (c *Client) Sign(ctx context.Context, s *Session, path, role string, csrPEM []byte, ttl time.Duration) (*Signed, error) {
	path = strings.Trim(path, "/")
	if !isPath(path) || !isRole(role) {
		return nil, fmt.Errorf("sign path %q, role %q: want plain names", clean(path), clean(role))
	}
	body, err := json.Marshal(map[string]string{
		"csr":    string(csrPEM),
		"ttl":    strconv.FormatInt(int64(ttl/time.Second), 10) + "s",
		"format": "pem",
	})
	if err != nil {
		return nil, fmt.Errorf("encode sign request: %w", err)
	}
	pass := c.newPass(opSign, c.nodesFrom(s.Node))
	pass.alone = true // what is signed twice is issued twice
	return overNodes(ctx, pass, func(ctx context.Context, node Node) (*Signed, *Error) {
		call := c.call(opSign, node)
		secret, err := call.write(ctx, path+"/sign/"+role, body, s.Token)
		if err != nil {
			return nil, err
		}
		signed := new(Signed)
		if err := decodeData(secret, signed); err != nil {
			return nil, call.garbage(err)
		}
		if signed.Certificate == "" {
			return nil, call.garbage(errors.New("no certificate in the answer"))
		}
		return signed, nil
	})
}

// nodesFrom returns the nodes beginning with first.
func (c *Client) nodesFrom(first Node) []Node {
	i := max(slices.Index(c.nodes, first), 0)
	return slices.Concat(c.nodes[i:], c.nodes[:i])
}

// call is one request to one node.
type call struct {
	client *Client
	op     string
	node   Node
	answer answer
}

func (c *Client) call(op string, node Node) *call { return &call{client: c, op: op, node: node} }

// view is the library's client, addressed to this call's node. All views share
// one tracker of the storage index, so that a node that is behind another one
// notices (DefaultStrongConsistency); a clone per node would not, and would
// read the environment.
func (c *call) view(token Token) *api.Client {
	host := strings.TrimPrefix(c.node.Address, "https://")
	return c.client.api.WithRequestCallbacks(func(r *api.Request) {
		r.URL = &url.URL{Scheme: "https", Host: host, Path: r.URL.Path}
		r.Host = host
		r.ClientToken = token.header()
	}).WithResponseCallbacks(c.answer.note, func(r *api.Response) { c.client.clock.note(r.Header) })
}

// write sends body, JSON, to path.
func (c *call) write(ctx context.Context, path string, body []byte, token Token) (*api.Secret, *Error) {
	secret, err := c.view(token).Logical().WriteBytesWithContext(ctx, path, body)
	if err != nil || c.answer.status >= 400 {
		return nil, c.failure(err)
	}
	if secret == nil && ctx.Err() != nil {
		return nil, c.failure(ctx.Err()) // what came while we hung up is no answer
	}
	if secret == nil {
		return nil, c.garbage(errors.New("an empty answer"))
	}
	return secret, nil
}

func (c *call) newError() *Error {
	return &Error{Op: c.op, Address: c.node.Address, caFile: c.client.caFile}
}

func (c *call) failure(err error) *Error { return c.newError().failure(c.answer, err) }

func (c *call) garbage(err error) *Error {
	e := c.newError()
	e.Kind, e.Status, e.Message = KindGarbage, c.answer.status, clean(err.Error())
	return e
}

// decodeData reads the data of an answer into a structure of ours.
func decodeData(secret *api.Secret, into any) error {
	text, err := json.Marshal(secret.Data)
	if err != nil {
		return errors.New("data that is not JSON")
	}
	if err := json.Unmarshal(text, into); err != nil {
		return errors.New("data of another shape")
	}
	return nil
}
