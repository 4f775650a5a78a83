# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Certificates that services read stay, and so does agent.toml.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if [ "$1" -ge 1 ]; then
		systemctl try-restart omen-agent.service || :
	fi
fi
