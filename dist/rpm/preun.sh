# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
if [ "$1" -eq 0 ] && [ -x /usr/bin/systemctl ]; then
	if [ -d /run/systemd/system ]; then
		systemctl --no-reload disable --now omen-agent.service omen-agent-unseal.service || :
	else
		systemctl --no-reload disable omen-agent.service omen-agent-unseal.service || :
	fi
fi
