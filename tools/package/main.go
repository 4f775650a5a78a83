// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"funlab.casa/omen/tools/output"
)

func main() { output.Main("package", makePackages) }

func makePackages(ctx context.Context, o output.Order) error { return batch{Order: o}.make(ctx) }
