// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

func (b *backend) pathStatistics() *framework.Path {
	return &framework.Path{
		Pattern:      "statistics",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "statistics"},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readStatistics, Summary: "Read what this mount has seen since its process started.",
				ForwardPerformanceStandby: true,
				Responses: ok(map[string]*framework.FieldSchema{
					"since":            {Type: framework.TypeString, Description: "Since when, RFC 3339."},
					"challenges":       {Type: framework.TypeInt64, Description: "Challenges given."},
					"logins":           {Type: framework.TypeInt64, Description: "Logins that got a token."},
					"refused":          {Type: framework.TypeMap, Description: "Refusals by rule."},
					"would_refuse":     {Type: framework.TypeMap, Description: "Logins that a monitored check would have refused, by role/check."},
					"alarms":           {Type: framework.TypeSlice, Description: "The last alarms: at, rule, host, tpm_id, detail, times."},
					"last_seen_writes": {Type: framework.TypeInt64, Description: "Transactions that wrote when hosts were last seen."},
				}),
			},
		},
		HelpSynopsis:    statisticsSynopsis,
		HelpDescription: statisticsDescription,
	}
}

func (b *backend) readStatistics(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Data: b.statistics.data(b.seen.bulkWrites())}, nil
}

const (
	statisticsSynopsis    = "Read counts and alarms of the active node."
	statisticsDescription = `
Counts are kept in memory and begin anew with the process: after a fail-over, a
reload or an upgrade. An alarm is something that does not happen to honest hosts:
a TPM whose counters went back, or a ticket that another TPM had spent. It is in
the server's log as well.
`
)
