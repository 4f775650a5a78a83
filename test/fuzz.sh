#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the module for the time given: fuzz.sh 20s
set -euo pipefail
cd "$(dirname "$0")/.."

targets=0
while IFS=: read -r file name; do
	targets=$((targets + 1))
	echo "== $name ($(dirname "$file"))"
	go test "./$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "$1" -fuzzminimizetime 10x
done < <(git ls-files --cached --others --exclude-standard '*_test.go' |
	xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //' | sort)
echo "$targets targets, nothing found"
[[ $targets -gt 0 ]]
