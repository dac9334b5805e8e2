#!/bin/sh
# Installs the module venv of Debian's Python; Debian ships it as a package of its own.
set -eu
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Python's module venv is missing. On Debian: apt-get install python3-venv" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
