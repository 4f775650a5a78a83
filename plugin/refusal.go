// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// refusal turns a refusal into the error the host gets: the rule and nothing
// else, under the rule's HTTP status, unwrapped because OpenBao's plugin
// protocol looks at the type alone. The detail goes to the operator's log. Other
// errors are the storage's: those by whose text OpenBao forwards a request pass
// untouched, of the rest a stranger hears that there was one.
func (b *backend) refusal(req *logical.Request, err error) error {
	var r *attest.Refusal
	if !errors.As(err, &r) {
		return b.storageError(req, err)
	}
	b.statistics.refuse(r.Rule)
	log := b.Logger().Info
	if r.Rule == attest.RuleInternal {
		log = b.Logger().Error
	}
	log("refused", "rule", string(r.Rule), "detail", printable(r.Detail), "path", req.Path, "remote", remote(req))
	return logical.CodedError(r.Rule.Status(), r.Public())
}

// storageFailed is no refusal: the same request may succeed later.
const storageFailed = "omen: storage failed"

func (b *backend) storageError(req *logical.Request, err error) error {
	if logical.ShouldForward(err) {
		return err
	}
	if errors.Is(err, context.Canceled) || strings.Contains(err.Error(), context.Canceled.Error()) {
		// The host has gone, by itself: not worth a line at each of ten thousand.
		b.Logger().Debug("request given up", "path", req.Path, "remote", remote(req))
		return logical.CodedError(http.StatusServiceUnavailable, storageFailed)
	}
	b.Logger().Error(storageFailed, "detail", printable(err.Error()), "path", req.Path, "remote", remote(req))
	return logical.CodedError(http.StatusInternalServerError, storageFailed)
}

// maxDetail bounds what one refusal may write into the log.
const maxDetail = 300

// printable makes a detail safe for a terminal and a log: it may quote a client.
func printable(detail string) string {
	if len(detail) > maxDetail {
		detail = detail[:maxDetail] + "…"
	}
	return strconv.QuoteToASCII(detail)
}

func remote(req *logical.Request) string {
	if req.Connection == nil {
		return ""
	}
	return req.Connection.RemoteAddr
}
