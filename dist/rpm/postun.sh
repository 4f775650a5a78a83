# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Certificates that services read stay, and so does agent.toml.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if [ "$1" -ge 1 ]; then
		systemctl try-restart omen-agent.service || :
	fi
fi
if [ "$1" -eq 0 ]; then
	for folder in /run/omen-agent /var/lib/omen-agent; do
		[ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder" || :
	done
	if [ -d /var/lib/omen-agent ]; then
		echo "omen-agent: /var/lib/omen-agent stays: services may read certificates there." >&2
	fi
fi
