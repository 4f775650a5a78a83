#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What debhelper would write, but that nothing starts before it is configured, and that
# the unsealing, which belongs to the boot, never does.
set -e

switch_on() {
	deb-systemd-helper unmask "$1" >/dev/null || true
	if deb-systemd-helper --quiet was-enabled "$1"; then
		deb-systemd-helper enable "$1" >/dev/null || true
	else
		# An administrator has disabled it: only what the links would be is noted.
		deb-systemd-helper update-state "$1" >/dev/null || true
	fi
}

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	switch_on omen-agent.service
	switch_on omen-agent-unseal.service
	if [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		if [ -e /etc/omen-agent/agent.toml ]; then
			deb-systemd-invoke restart omen-agent.service >/dev/null || true
		fi
	fi
	;;
esac
