#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
set -e

if [ "$1" = remove ]; then
	if [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop omen-agent.service omen-agent-unseal.service >/dev/null || true
	fi
	for set in /var/lib/omen-agent/*/current; do
		if [ -e "$set" ]; then
			echo "omen-agent: certificates stay in /var/lib/omen-agent, and nobody renews them any more." >&2
			echo "omen-agent: to have the services as they were before: install it again, omen-agent uninstall, remove it." >&2
			break
		fi
	done
fi
