#!/usr/bin/env bash
# engine.sh COMMAND [ARG…]: runs COMMAND against a Docker Engine of its own and ends with its status.
#
# For machines without an engine and without a registry to pull from; where `docker info` answers and
# images can be pulled, none of this is needed. Debian, root, and Debian's packages are.
#
# What it promises:
#   - The engine lives in a network namespace of its own: no bridge, no firewall rule and no port of
#     this machine is touched, and no container reaches anything but the others. COMMAND runs in
#     there too, so that published ports answer it on 127.0.0.1.
#   - Data, socket and process id lie in one temporary folder. The engine is stopped by that id and
#     the folder is removed, however COMMAND ends.
#   - The base images that Dockerfile and docker-compose.yml name are stand-ins: Debian with the same
#     programs, users, paths and start commands. The Go image brings the modules, because a build
#     in here has no network.
#
# FLEET_ENGINE_CACHE keeps the Debian tree of the stand-ins between runs (default: not kept).
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
suite=bookworm

say() { printf 'engine: %s\n' "$*" >&2; }

install_packages() {
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v docker >/dev/null || missing+=(docker.io)
  command -v docker-compose >/dev/null || missing+=(docker-compose)
  command -v debootstrap >/dev/null || missing+=(debootstrap)
  command -v ip >/dev/null || missing+=(iproute2)
  [ -x /usr/sbin/iptables ] || missing+=(iptables)
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# debian_tree DIR: a small Debian with Redis, whose redis user has the number of the official image's.
debian_tree() {
  [ -e "$1/.complete" ] && return 0
  say "making a Debian tree"
  rm -rf "$1"
  debootstrap --variant=minbase --include=redis-server,ca-certificates,tzdata "$suite" "$1" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; return 1; }
  chroot "$1" sh -c 'groupmod -g 999 redis && usermod -u 999 -g 999 redis'
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/dev/*
  touch "$1/.complete"
}

# Each stage is the root of one stand-in; hard links where the Debian tree is used as it is.
stage_golang() {
  local root=$work/golang
  cp -al "$work/debian" "$root"
  mkdir -p "$root/go/pkg/mod" "$root/go/bin"
  cp -a "$(go env GOROOT)/." "$root/usr/local/go/"
  # Straight from this machine's module cache, else from the proxy that this machine uses.
  (cd "$repo" && GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GOFLAGS=-modcacherw \
    GOMODCACHE="$root/go/pkg/mod" go mod download)
}

stage_redis() {
  local root=$work/redis
  cp -al "$work/debian" "$root"
  install -d -o 999 -g 999 "$root/data"
  cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'SH'
#!/bin/sh
# Like the official image: started as root, the server runs as redis all the same.
case "$1" in -*) set -- redis-server "$@" ;; esac
if [ "$(id -u)" = 0 ]; then
  chown redis:redis /data
  exec setpriv --reuid=redis --regid=redis --clear-groups "$@"
fi
exec "$@"
SH
  chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
}

# No shell, no libc, nothing but what a static binary looks for.
stage_distroless() {
  local root=$work/distroless
  mkdir -p "$root/etc/ssl/certs" "$root/usr/share"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n' >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  cp "$work/debian/etc/ssl/certs/ca-certificates.crt" "$root/etc/ssl/certs/"
  cp -a "$work/debian/usr/share/zoneinfo" "$root/usr/share/"
  install -d -m 1777 "$root/tmp"
  install -d -o 65532 -g 65532 -m 700 "$root/home/nonroot"
}

# import STAGE TAG CHANGE…: the stage becomes the image TAG.
import() {
  local stage=$1 tag=$2 changes=() c
  shift 2
  for c; do changes+=(--change "$c"); done
  tar -C "$work/$stage" -c . | docker import "${changes[@]}" - "$tag" >/dev/null
  say "image $tag (stand-in)"
}

import_images() {
  local path='PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  import golang golang:1.26-bookworm "ENV ${path/=/=/go/bin:/usr/local/go/bin:} GOPATH=/go GOTOOLCHAIN=local GOPROXY=off" 'WORKDIR /go'
  import redis redis:7-bookworm "ENV $path" 'WORKDIR /data' 'VOLUME /data' 'EXPOSE 6379' \
    'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["redis-server"]'
  import distroless gcr.io/distroless/static-debian12:nonroot "ENV $path SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" \
    'USER 65532' 'WORKDIR /home/nonroot'
}

start_engine() {
  dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" \
    --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
  engine=$!
  local try
  for try in $(seq 150); do
    docker version >/dev/null 2>&1 && return 0
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.2
  done
  say "dockerd did not start:"
  tail -n 20 "$work/dockerd.log" >&2
  return 1
}

stop_engine() {
  local status=$?
  trap - EXIT
  if [ -n "${engine:-}" ] && kill "$engine" 2>/dev/null; then
    wait "$engine" 2>/dev/null || true
  fi
  exit "$status"
}

# The second half, inside the network namespace.
inside() {
  work=$1
  shift
  export DOCKER_HOST=unix://$work/docker.sock
  ip link set lo up
  trap stop_engine EXIT
  trap 'exit 130' INT TERM
  start_engine
  import_images
  say "ready"
  "$@"
}

main() {
  [ $# -gt 0 ] || { sed -n '2,3p' "$0"; exit 2; }
  [ "$(id -u)" = 0 ] || { say "needs root"; exit 1; }
  install_packages
  work=$(mktemp -d "${TMPDIR:-/tmp}/fleet-engine.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  if [ -n "${FLEET_ENGINE_CACHE:-}" ]; then
    mkdir -p "$FLEET_ENGINE_CACHE"
    debian_tree "$FLEET_ENGINE_CACHE/$suite"
    cp -a "$FLEET_ENGINE_CACHE/$suite" "$work/debian"
  else
    debian_tree "$work/debian"
  fi
  stage_golang
  stage_redis
  stage_distroless
  unshare --net "$0" --inside "$work" "$@"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
else
  main "$@"
fi
