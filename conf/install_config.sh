#!/bin/sh
# Installs the default configuration, unless there is one: install_config.sh SOURCE TARGET.
set -eu
target=${DESTDIR:-}$2
[ -e "$target" ] && exit 0
install -D -m 644 "$1" "$target"
echo "Installing $1 to $target"
