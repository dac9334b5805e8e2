#!/bin/sh
# Installs PostgreSQL, PgBouncer, RabbitMQ, libfaketime, Chromium and npm for the tests, where they
# are missing and it may: as root on Debian. Starts none: each test run has servers of its own. Where
# it may not, the tests that need them are skipped with the reason.
set -eu

missing=
if [ -z "${KUPOOL_TEST_PG_DSN:-}" ] && ! command -v postgres >/dev/null &&
    ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    missing="postgresql"
fi
if [ -z "${KUPOOL_TEST_AMQP_URL:-}" ] && { ! command -v epmd >/dev/null ||
    ! { [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null; }; }
then
    missing="$missing rabbitmq-server"
fi
if ! ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 \
    /usr/local/lib/faketime/libfaketimeMT.so.1 2>/dev/null | grep -q .; then
    missing="$missing libfaketime"
fi
if [ -z "${KUPOOL_TEST_PG_DSN:-}" ] && ! command -v pgbouncer >/dev/null &&
    ! [ -x /usr/sbin/pgbouncer ]; then
    missing="$missing pgbouncer"
fi
# The names are those of tests/browser.
if ! command -v chromium-headless-shell >/dev/null && ! command -v chromium >/dev/null &&
    ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
    missing="$missing chromium-headless-shell"
fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    missing="$missing nodejs npm"
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed, so tests will be skipped:" $missing >&2
    exit 0
fi

# Debian asks this program whether a package may start its service: not while we install.
policy=/usr/sbin/policy-rc.d
kept=
restore() {
    rm -f "$policy"
    [ -z "$kept" ] || mv "$kept" "$policy"
}
if [ -e "$policy" ] || [ -L "$policy" ]; then
    kept="$policy.before-kupool"
    mv "$policy" "$kept"
fi
trap restore EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

echo "Installing for the tests, without starting them:" $missing
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
wait="-o DPkg::Lock::Timeout=300"
# $missing and $wait are lists.
if ! { apt-get $wait update -qq &&
    apt-get $wait install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "They could not be installed; the tests that need them will be skipped." >&2
fi
rm -f "$log"
