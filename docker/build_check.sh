#!/usr/bin/env bash
# Builds the CPU image with buildah, which needs no engine, starts it, waits until it is ready, asks it, measures it, and stops it.
#
# BUILD_OPTIONS are added to `buildah build`: where packages come through a proxy, such as
#     BUILD_OPTIONS="--volume /etc/ssl/certs/ca-certificates.crt:/run/ca.crt:ro --env PIP_CERT=/run/ca.crt"
# BUILDAH (default: buildah) may have options of its own, such as `buildah --storage-driver vfs`.
set -euo pipefail
cd "$(dirname "$0")/.."

MOST_MEGABYTES=650
READY_SECONDS=60
read -ra buildah <<< "${BUILDAH:-buildah}"
read -ra options <<< "${BUILD_OPTIONS:-}"
image=localhost/atelier:check
place=$(mktemp -d)
container="" runner=""

finish() {
  [ -z "$runner" ] || kill "$(innermost "$runner")" 2> /dev/null || true
  [ -z "$container" ] || "${buildah[@]}" rm "$container" > /dev/null
  rm -rf "$place"
}
trap finish EXIT

fail() {
  echo "$1" >&2
  exit 1
}

# The innermost of the processes that another started.
innermost() {
  local process=$1 next
  while next=$(pgrep --newest --parent "$process"); do process=$next; done
  echo "$process"
}

inside() {
  "${buildah[@]}" run --isolation chroot "$@"
}

# Runs the image's health check.
healthy() {
  local test
  mapfile -d '' -t test < <("${buildah[@]}" inspect --type image "$image" |
    python3 -c 'import json, sys; print(*json.load(sys.stdin)["Docker"]["config"]["Healthcheck"]["Test"][1:], sep="\0", end="\0")')
  inside --env "ATELIER_PORT=$port" "$container" -- "${test[@]}"
}

"${buildah[@]}" build --isolation chroot --format docker --layers "${options[@]}" \
  --file docker/service.Dockerfile --target cpu --tag "$image" .

# What an engine would show: all layers, unpacked.
"${buildah[@]}" push --quiet "$image" "docker-archive:$place/image.tar" > /dev/null
megabytes=$(($(stat --format %s "$place/image.tar") / 1000000))
rm "$place/image.tar"

container=$("${buildah[@]}" from --pull-never "$image")
inside "$container" -- python -m service doctor
version=$(inside "$container" -- python -m service --version)
writable=$(inside "$container" -- find / -xdev -writable -not -path '/proc/*' -not -path '/sys/*' -not -path '/dev/*' \
  -not -path /var/tmp -not -path /run/lock -not -type l 2> /dev/null || true)
[ "$writable" = /tmp ] || fail "the server's user should be able to write to /tmp alone, not to: $writable"

# Its own filesystem, the host's network: on loopback, at a free port.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
began=$(date +%s%N)
inside --env ATELIER_HOST=127.0.0.1 --env "ATELIER_PORT=$port" "$container" -- python -m service 2> "$place/log" &
runner=$!
until curl --silent --fail --output "$place/ready.json" "http://127.0.0.1:$port/health/ready"; do
  kill -0 "$runner" 2> /dev/null || fail "the server ended: $(cat "$place/log")"
  (($(date +%s%N) - began < READY_SECONDS * 1000000000)) || fail "not ready after $READY_SECONDS s: $(cat "$place/log")"
  sleep 0.05
done
milliseconds=$((($(date +%s%N) - began) / 1000000))
server=$(innermost "$runner")
busy=$(awk -v "ticks=$(getconf CLK_TCK)" '{ printf "%.1f", ($14 + $15) / ticks }' "/proc/$server/stat")
[ "$(stat --format %u "/proc/$server")" = 10001 ] || fail "the server does not run as its own user"
curl --silent --fail --output "$place/digits.png" --header 'Accept: image/png' --json '{"digits": "2026"}' "http://127.0.0.1:$port/v1/digits"
[ "$(head --bytes 4 "$place/digits.png" | tail --bytes 3)" = PNG ] || fail "no picture came back"
healthy || fail "the image's health check does not find a ready server healthy"
sleep 2
resident=$(awk '/VmRSS/ { print int($2 * 1.024 / 1000) }' "/proc/$server/status")
models=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["models"]))' "$place/ready.json")

kill "$server"
code=0
wait "$runner" || code=$?
runner=""
[ "$code" = 0 ] || fail "it was told to stop and ended with $code: $(cat "$place/log")"
! healthy 2> /dev/null || fail "the image's health check finds a server healthy that is gone"
((megabytes <= MOST_MEGABYTES)) || fail "the image has $megabytes MB, $MOST_MEGABYTES are allowed"

echo "$version: $models models; image $megabytes MB; ready after $milliseconds ms, $busy s of them on a core; $resident MB resident at rest; stopped with $code"
