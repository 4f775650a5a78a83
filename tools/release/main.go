// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"funlab.casa/omen/tools/output"
)

func main() { output.Main("release", makeRelease) }

func makeRelease(ctx context.Context, o output.Order) error { return release{o}.make(ctx) }
