// SPDX-License-Identifier: Apache-2.0

// Command openbao-plugin-auth-tpm serves package plugin to OpenBao as the auth
// method of type tpm. OpenBao starts it; it does nothing by itself.
package main

import (
	"os"

	"github.com/hashicorp/go-hclog"
	sdk "github.com/openbao/openbao/sdk/v2/plugin"

	"funlab.casa/omen/plugin"
)

func main() {
	// The server filters by its own log level.
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	err := sdk.ServeMultiplex(&sdk.ServeOpts{BackendFactoryFunc: plugin.Factory, Logger: log})
	if err != nil {
		log.Error("plugin ends", "error", err)
		os.Exit(1)
	}
}
