#!/bin/bash
# A Docker engine of its own, for a Debian machine that has none, and a stand-in for the Python base image.
#   engine.sh up DIR           unpack Debian's packages into DIR and start the engine; nothing is installed
#   engine.sh base DIR TAG     make the stand-in, or take it from DIR, and give it TAG
#   engine.sh down DIR         stop the engine; its rules, links, mounts and cgroups go, DIR stays as a cache
# DIR/env is what a shell sources to talk to it. Mirrors and pip's settings are the machine's own.
set -euo pipefail

usage="usage: engine.sh up DIR | base DIR TAG | down DIR"
action=${1:?$usage}
dir=$(realpath -m "${2:?$usage}")
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# Of the range for benchmarks (RFC 2544), which is in nobody's network.
bridge=altlas-test0
bridge_address=198.18.0.1/24
pool=198.19.0.0/16
our_networks='198\.1[89]\.'
cgroup=altlas-compose-test

root=$dir/root
libraries=$root/usr/lib/$(uname -m)-linux-gnu
tools=$root/usr/sbin:$root/usr/bin:$root/sbin:$root/bin
export PATH=$tools:$PATH
export DOCKER_HOST=unix://$dir/docker.sock DOCKER_CONFIG=$dir/config

fail() { echo "engine.sh: $*" >&2; exit 1; }
say() { printf 'engine: %s\n' "$*"; }

# What was unpacked, with its own libraries where the machine lacks them.
ours() {
  local extensions=$libraries/xtables
  [ -d "$extensions" ] || extensions=/usr/lib/$(uname -m)-linux-gnu/xtables
  LD_LIBRARY_PATH=$libraries:$root/lib/$(uname -m)-linux-gnu XTABLES_LIBDIR=$extensions "$@"
}

# Of iproute2, which this machine may lack as well.
ip() { ours command ip "$@"; }

read_debian() {
  # shellcheck source=/dev/null
  [ -r /etc/os-release ] && . /etc/os-release
  [ "${ID:-}" = debian ] || fail "this machine is not Debian: start a Docker engine by hand and try again"
  release=$VERSION_CODENAME
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="$release" '$2 == release && $3 == "main" && !uri {uri = $1} END {print uri}')
  [ -n "$mirror" ] || fail "apt knows no source of $release main; see /etc/apt/sources.list.d"
}

# apt_in STATE RELEASE ARGUMENT...: apt-get with one source, and with lists and archives of its own.
apt_in() {
  local state=$1
  mkdir -p "$state"/{lists,archives}/partial
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $2 main" >"$state/sources.list"
  apt-get -qq -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Cache="$state" \
    -o Dir::State::lists="$state/lists" -o Dir::Cache::archives="$state/archives" -o APT::Sandbox::User=root "${@:3}"
}

unpack() {
  local apt=$dir/apt
  [ -e "$dir/unpacked" ] && return
  read_debian
  rm -rf "$root" "$apt" && mkdir -p "$root/usr/sbin" "$dir/config/cli-plugins"
  apt_in "$apt/engine" "$release" update
  apt_in "$apt/engine" "$release" install --yes --no-install-recommends --download-only \
    docker.io iptables iproute2 debootstrap ca-certificates >"$dir/apt.log"
  find "$apt/engine/archives" -name '*.deb' -exec dpkg -x {} "$root" \;
  # Debian's alternatives are made when a package is installed, which these are not.
  local name
  for name in iptables iptables-save iptables-restore ip6tables; do
    [ ! -e "$root/usr/sbin/xtables-nft-multi" ] || ln -sf xtables-nft-multi "$root/usr/sbin/$name"
  done
  # Compose of Debian 12 is of the first generation. That of Debian 13 is one file, which runs on Debian 12 as well.
  apt_in "$apt/compose" trixie update
  (cd "$apt/compose" && apt_in "$apt/compose" trixie download docker-compose && dpkg -x docker-compose_*.deb x)
  install -m 755 "$apt/compose/x/usr/libexec/docker/cli-plugins/docker-compose" "$dir/config/cli-plugins/"
  rm -rf "$apt"
  touch "$dir/unpacked"
}

is_up() { [ -s "$dir/dockerd.pid" ] && [ "$(cat "/proc/$(cat "$dir/dockerd.pid")/comm" 2>/dev/null)" = dockerd ]; }

up() {
  [ "$(id -u)" = 0 ] || fail "an engine needs root: run this as root, or start an engine by hand"
  mkdir -p "$dir"
  unpack
  echo "export DOCKER_HOST=$DOCKER_HOST DOCKER_CONFIG=$DOCKER_CONFIG PATH=$tools:\$PATH" >"$dir/env"
  if is_up; then say "is up already, process $(cat "$dir/dockerd.pid")"; return; fi
  rm -f "$dir/dockerd.pid"
  ! ours iptables -S | grep -q DOCKER || fail "the packet filter has the chains of another engine: stop it, or use it"
  # What the engine changes and does not put back.
  cp /proc/sys/net/ipv4/ip_forward "$dir/ip_forward.before"
  ours iptables -S FORWARD | awk '/^-P/ {print $3}' >"$dir/forward_policy.before"
  ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
  ip address replace "$bridge_address" dev "$bridge" && ip link set "$bridge" up
  ours setsid dockerd --host "$DOCKER_HOST" --pidfile "$dir/dockerd.pid" --data-root "$dir/data" \
    --exec-root "$dir/exec" --bridge "$bridge" --default-address-pool "base=$pool,size=24" --ip6tables=false \
    --cgroup-parent "/$cgroup" >"$dir/dockerd.log" 2>&1 </dev/null &
  local engine=$!
  for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && break
    kill -0 $engine 2>/dev/null || break
    sleep 0.1
  done
  if ! docker info >/dev/null 2>&1; then
    tail -n 5 "$dir/dockerd.log" >&2
    fail "the engine did not start; log: $dir/dockerd.log"
  fi
  say "$(docker info --format 'Docker {{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}')," \
    "$(docker info --format '{{.SecurityOptions}}')," "compose $(docker compose version --short), Linux $(uname -r)"
}

# What pip is set up with here and needs in the image too: the authorities it trusts, an index, and a folder of wheels.
pip_setting() { python3 -m pip config list 2>/dev/null | sed -n "s/^\(global\|:env:\)\.$1='\(.*\)'$/\2/p" | tail -n 1; }

make_base() {
  local rootfs=$dir/rootfs wheels index
  read_debian
  rm -rf "$rootfs"
  DEBOOTSTRAP_DIR=$root/usr/share/debootstrap
  [ -d "$DEBOOTSTRAP_DIR" ] || DEBOOTSTRAP_DIR=/usr/share/debootstrap
  DEBOOTSTRAP_DIR=$DEBOOTSTRAP_DIR ours debootstrap --variant=minbase \
    --include=python3,python3-pip,python3-venv,ca-certificates "$release" "$rootfs" "$mirror" >"$dir/debootstrap.log" ||
    { tail -n 5 "$dir/debootstrap.log" >&2; fail "debootstrap failed; log: $dir/debootstrap.log"; }
  rm -rf "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/lib/apt/lists/* "$rootfs"/usr/share/{doc,man,locale}/* \
    "$rootfs"/usr/lib/python3*/EXTERNALLY-MANAGED
  cp /etc/ssl/certs/ca-certificates.crt "$rootfs/etc/ssl/certs/"
  ln -sf /usr/bin/python3 "$rootfs/usr/local/bin/python"
  ln -sf /usr/bin/python3 "$rootfs/usr/local/bin/python3"
  ln -sf /usr/bin/pip3 "$rootfs/usr/local/bin/pip"
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$rootfs/etc/pip.conf"
  index=$(pip_setting index-url)
  [ -z "$index" ] || echo "index-url = $index" >>"$rootfs/etc/pip.conf"
  wheels=$(pip_setting find-links)
  if [ -d "$wheels" ]; then
    mkdir "$rootfs/wheels" && cp "$wheels"/*.whl "$rootfs/wheels/"
    echo 'find-links = /wheels' >>"$rootfs/etc/pip.conf"
  fi
  tar -C "$rootfs" -cf "$dir/base.tar.new" --numeric-owner . && mv "$dir/base.tar.new" "$dir/base.tar"
  rm -rf "$rootfs"
}

base() {
  local tag=${1:?$usage}
  [ -s "$dir/base.tar" ] || make_base
  docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    --change 'CMD ["python3"]' "$dir/base.tar" "$tag" >/dev/null
  say "$tag is a stand-in: $(docker run --rm "$tag" python --version) on Debian"
}

down() {
  local engine id link table bridges=$bridge
  if is_up; then
    # Networks that somebody left: those without an address are known by their names alone.
    for id in $(docker network ls --quiet --no-trunc --filter driver=bridge); do bridges+="|br-${id:0:12}"; done
    engine=$(cat "$dir/dockerd.pid")
    kill "$engine"
    for _ in $(seq 300); do kill -0 "$engine" 2>/dev/null || break; sleep 0.1; done
    ! kill -0 "$engine" 2>/dev/null || fail "process $engine does not end; log: $dir/dockerd.log"
  fi
  rm -f "$dir/dockerd.pid" "$dir/docker.sock"
  for link in $(ip -o link show type bridge | awk -F '[ :]+' '{print $2}'); do
    if [[ $link =~ ^($bridges)$ ]] || ip -o -4 address show dev "$link" | grep -qE " $our_networks"; then
      ip link delete "$link"
    fi
  done
  if [ -s "$dir/forward_policy.before" ]; then
    for table in filter nat; do
      ours iptables-save -t $table | grep -vE "DOCKER|$bridges|$our_networks" | ours iptables-restore -T $table
    done
    ours iptables -P FORWARD "$(cat "$dir/forward_policy.before")"
    cp "$dir/ip_forward.before" /proc/sys/net/ipv4/ip_forward
    rm "$dir/forward_policy.before" "$dir/ip_forward.before"
  fi
  awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount
  find /sys/fs/cgroup -depth -type d \( -name "$cgroup" -o -path "*/$cgroup/*" \) -exec rmdir {} \;
  say "stopped; $dir keeps $(du -sh "$dir" | cut -f1) of images for the next time"
}

case $action in
  up) up ;;
  base) base "${3:-}" ;;
  down) down ;;
  *) fail "$usage" ;;
esac
