#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A purge takes what the package made: links that enable units, and folders with nothing
# in them. Certificates that services read stay, and so does agent.toml.
set -e

if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge omen-agent.service omen-agent-unseal.service >/dev/null || true
		deb-systemd-helper unmask omen-agent.service omen-agent-unseal.service >/dev/null || true
	fi
	for folder in /run/omen-agent /var/lib/omen-agent /etc/omen-agent; do
		[ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
	done
	if [ -d /var/lib/omen-agent ]; then
		echo "omen-agent: /var/lib/omen-agent stays: services may read certificates there." >&2
	fi
fi
