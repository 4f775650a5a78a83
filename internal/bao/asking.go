// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// asking is one request on its way.
type asking struct {
	node  Node
	began time.Time
	seen  atomic.Bool // the node's kernel answers
}

// watch returns a context whose request tells when the node is seen. A node that
// is dead or cut off never is. One that hangs is, as is one that has much to do:
// with thousands of hosts at once TLS alone takes many seconds, and who begins it
// anew elsewhere makes it longer for all.
func (a *asking) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				a.seen.Store(true)
			}
		},
		GotConn: func(httptrace.GotConnInfo) { a.seen.Store(true) },
	})
}
