#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Judges the code. Every tool is pinned in tools/go.mod or comes from Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 gofmt -l)
if [[ -n $bad ]]; then
	echo "gofmt would change: $bad" >&2
	exit 1
fi
go vet -tags long,keylimeagent,provider ./...
(cd bench && go vet ./...)
go tool -modfile=tools/go.mod golangci-lint run ./...
git ls-files --cached --others --exclude-standard '*.sh' .ci/run | xargs shellcheck
(cd tools && go mod verify >/dev/null && go vet ./... && go tool golangci-lint run -c ../.golangci.yml ./...)
for module in . bench; do
	(cd "$module" && go mod tidy -diff)
done
echo "lint: ok"
