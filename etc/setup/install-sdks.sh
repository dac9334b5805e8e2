#!/bin/sh
# Installs the JavaScript packages that tests/sdk needs into .cache/sdk, at the versions of its
# package-lock.json. Where that fails, the tests that need them are skipped with the reason.
set -eu

lock=tests/sdk/package-lock.json
there=.cache/sdk
if [ -d "$there/node_modules" ] && cmp -s "$lock" "$there/package-lock.json"; then
    exit 0
fi
if ! command -v npm >/dev/null; then
    echo "npm is missing, so the tests in tests/sdk that need it will be skipped" >&2
    exit 0
fi
echo "Installing the JavaScript packages for tests/sdk"
# Elsewhere first: what is half installed must not look like what is whole.
rm -rf "$there.new"
mkdir -p "$there.new"
cp "$lock" tests/sdk/package.json "$there.new"
if ! npm ci --prefix "$there.new" --ignore-scripts --no-audit --no-fund --silent >&2; then
    rm -rf "$there.new"
    echo "They could not be installed; the tests that need them will be skipped." >&2
    exit 0
fi
rm -rf "$there"
mv "$there.new" "$there"
