#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the Debian 12 roots that the tests boot, once: .cache/debian-root.tar for a
# container (200 MB), and .cache/debian-vm.tar for a computer (300 MB), with a kernel.
# Both are links into the cache. Needs root and a Debian mirror the first time; with
# nothing missing it takes a moment.
#
# OMEN_CACHE  where the tars are kept (default /var/cache/omen).
set -euo pipefail
umask 022

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${OMEN_CACHE:-/var/cache/omen}
packages=(mmdebstrap systemd-container util-linux)
# The computer is one with UEFI firmware that measures: on amd64 only.
with_computer=$([ "$(dpkg --print-architecture)" != amd64 ] || echo yes)
[ -z "$with_computer" ] || packages+=(qemu-system-x86 ovmf e2fsprogs)
# What Keylime in the Python environment of setup.sh rests on: python3, python3-gpg, tpm2-tools.
# rpm is for the package of the other format.
container="systemd,dbus,python3,python3-gpg,rpm,tpm2-tools"
computer="systemd,dbus,udev,kmod,tpm2-tools,qemu-guest-agent,linux-image-cloud-amd64"
recipe=(--variant=essential
    --dpkgopt=path-exclude=/usr/share/doc/* --dpkgopt=path-exclude=/usr/share/man/*
    --dpkgopt=path-exclude=/usr/share/locale/* bookworm)

die() {
    echo "debian-root: error: $1" >&2
    [ -z "${2:-}" ] || echo "debian-root: hint: $2" >&2
    exit 1
}

install_packages() {
    local name missing=()
    for name in "${packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    echo "debian-root: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || die "the package lists cannot be updated" "look at the network, then: apt-get update"
    apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null ||
        die "the packages cannot be installed" "as root: apt-get install --no-install-recommends ${missing[*]}"
}

# Called under the lock: somebody else may have been here in between.
make_tar() {
    local tar=$1 work
    shift
    [ ! -e "$tar" ] || return 0
    echo "debian-root: making $tar (about a minute)"
    work=$(mktemp -d "$cache/.debian-root.XXXXXX")
    mmdebstrap --quiet "$@" "$work/root.tar" 2>"$work/log" ||
        { tail -n 20 "$work/log" >&2; rm -rf "$work"; die "mmdebstrap stops" "look at the network"; }
    mv "$work/root.tar" "$tar"
    rm -rf "$work"
}

# lay NAME PACKAGES makes a root where there is none yet, and the link to it.
lay() {
    local how tar
    how=("${recipe[0]}" "--include=$2" "${recipe[@]:1}")
    tar=$(realpath -m "$cache")/$1-$(echo "${how[*]}" | sha256sum | cut -c1-16).tar
    if [ ! -e "$tar" ]; then
        mkdir -p "$cache"
        exec 9>"$cache/.debian-root.lock"
        flock -w 900 9 || die "another set-up holds $cache/.debian-root.lock for 15 minutes" "wait for it, or end it"
        make_tar "$tar" "${how[@]}"
        exec 9>&-
    fi
    mkdir -p "$root/.cache"
    ln -sfn "$tar" "$root/.cache/$1.tar"
    echo "debian-root: ready: $root/.cache/$1.tar"
}

main() {
    [ "$(id -u)" = 0 ] || die "root is needed: a system is unpacked and booted" "sudo make test-long"
    install_packages
    lay debian-root "$container"
    [ -z "$with_computer" ] || lay debian-vm "$computer"
}

main
