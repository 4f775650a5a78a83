// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"funlab.casa/omen/attest"
)

// NewToken takes the text of a token: printable, without a space, at most 8 KiB.
// The error does not repeat it.
func NewToken(text []byte) (Token, error) { return newToken(string(text)) }

// OpenTicket opens the wrapping token that holds a ticket of the auth method,
// beginning at the node first. It can be opened once: the caller keeps what comes
// out. A token that was made by another path is not opened. A failure is an
// [*Error]: Spent says that there is nothing to open any more, StartOver that
// nobody could be asked; after the latter the token may be spent all the same,
// because its answer got lost.
func (c *Client) OpenTicket(ctx context.Context, wrapping Token, first Node) (attest.Ticket, error) {
	return c.openTicket(ctx, wrapping, first, c.authPath+"/ticket")
}

func (c *Client) openTicket(ctx context.Context, wrapping Token, first Node, madeBy string) (attest.Ticket, error) {
	where, failure := c.lookUp(ctx, wrapping, first, madeBy)
	if failure != nil {
		return nil, failure
	}
	ticket, failure := once(ctx, c, opUnwrap, where, func(ctx context.Context, call *call) (attest.Ticket, *Error) {
		return call.unwrap(ctx, wrapping)
	})
	if failure != nil {
		return nil, failure
	}
	return ticket, nil
}

// lookUp finds a node that knows the wrapping token, and looks where it comes
// from. A node that is behind its peers does not know a token that was just made,
// so that each is asked before it is called spent.
func (c *Client) lookUp(ctx context.Context, wrapping Token, first Node, madeBy string) (Node, *Error) {
	var worst *Error
	for _, node := range c.nodesFrom(first) {
		path, failure := once(ctx, c, opLookup, node, func(ctx context.Context, call *call) (string, *Error) {
			return call.creationPath(ctx, wrapping)
		})
		switch {
		case failure == nil && path != madeBy:
			return node, &Error{Op: opLookup, Address: node.Address, Kind: KindRejected,
				Message: fmt.Sprintf("the wrapping token was made by %q, not by %q", clean(path), madeBy)}
		case failure == nil:
			return node, nil
		case worst == nil || failure.Spent():
			worst = failure
		}
		if failure.Kind == KindCancelled {
			break
		}
	}
	return Node{}, worst
}

// creationPath asks what a wrapping token was made by, which does not spend it.
func (c *call) creationPath(ctx context.Context, wrapping Token) (string, *Error) {
	secret, failure := c.write(ctx, "sys/wrapping/lookup", nil, wrapping)
	if failure != nil {
		return "", failure
	}
	var data struct {
		Path string `json:"creation_path"`
	}
	if err := decodeData(secret, &data); err != nil {
		return "", c.garbage(err)
	}
	return data.Path, nil
}

func (c *call) unwrap(ctx context.Context, wrapping Token) (attest.Ticket, *Error) {
	secret, failure := c.write(ctx, "sys/wrapping/unwrap", nil, wrapping)
	if failure != nil {
		return nil, failure
	}
	text, _ := secret.Data["ticket"].(string)
	ticket, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(ticket) != attest.TicketSize {
		return nil, c.garbage(errors.New("no ticket in what was wrapped"))
	}
	return ticket, nil
}
