# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What systemd's macros would write: the distribution's presets say whether it is enabled.
if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
	systemctl --no-reload preset omen-agent.service omen-agent-unseal.service || :
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
