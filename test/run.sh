#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every Go test of every module here, race detector on. The last line is
# "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $(id -u) != 0 ]]; then
	echo "make test: root is needed (it makes namespaces, mounts and users of its own); try sudo make test" >&2
	exit 1
fi
# Fuzz targets run their seeds here; make fuzz lets them search.
{
	status=0
	go test -race -json -count=1 -timeout 12m ./... || status=1
	(cd tools && go test -race -json -count=1 -timeout 10m ./...) || status=1
	exit "$status"
} | go run ./test/sum
