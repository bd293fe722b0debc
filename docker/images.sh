#!/usr/bin/env bash
# Builds the images with the Docker engine of this machine, and tries them out.
#   docker/images.sh [netra] [netra-init] [netra-init-iptables] [netra-control] [netra-test]
# Without names: all but the last. From the environment:
#   PROFILE  cargo profile: ship (default) or dev
#   TAG      tag of the images, else the version
#   PREFIX   before the names, e.g. registry.example.org/mesh/
#   BASE     base of netra-init-iptables (debian:bookworm-slim; made by debootstrap if not to be had),
#            or `machine`: the shell and the iptables of this one, for tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

images=("$@")
[ ${#images[@]} -gt 0 ] || images=(netra netra-init netra-init-iptables netra-control)
PROFILE=${PROFILE:-ship}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
TAG=${TAG:-$version}
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || true)
PREFIX=${PREFIX:-}
BASE=${BASE:-debian:bookworm-slim}

if ! docker info >/dev/null 2>&1; then
  echo "*** SKIPPED: no Docker engine answers here; no image was built ***" >&2
  [ "${NETRA_REQUIRE_DOCKER:-}" != 1 ]
  exit
fi

target=$(rustc -vV | sed -n 's/^host: //p')
out=${CARGO_TARGET_DIR:-target}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
sudo=$([ "$(id -u)" = 0 ] || echo sudo)

# Static, so that an image needs nothing else. What ships is built with one set of flags from the first
# crate to the last (RUSTFLAGS is instead of .cargo/config.toml's, whose frame pointers are said again).
# For tests only the last step is told: the crates below are those of other debug builds, and there
# already. A debug build has its frames in the binary: strip it.
static() {
  local name=$1 folder=$out/$target/$PROFILE
  local last=(-C target-feature=+crt-static -C strip=symbols -C link-arg=-Wl,-z,pack-relative-relocs)
  if [ "$PROFILE" = dev ]; then
    folder=$out/debug
    NETRA_COMMIT=$commit cargo rustc --quiet -p "$name" --bin "$name" -- "${last[@]}"
  else
    RUSTFLAGS="${RUSTFLAGS:--Cforce-frame-pointers=yes} ${last[*]}" \
      NETRA_COMMIT=$commit cargo build --quiet --profile "$PROFILE" --target "$target" -p "$name"
  fi
  cp "$folder/$name" "$context/"
  if readelf -l "$context/$name" | grep -q INTERP; then
    echo "$name is not static" >&2
    exit 1
  fi
}

# Debian's, of this machine; without the package the image trusts nobody but NETRA_TLS_CA_FILE.
roots() {
  cp -L /etc/ssl/certs/ca-certificates.crt "$context/" 2>/dev/null || {
    echo "no ca-certificates on this machine: the image has no roots of trust" >&2
    : >"$context/ca-certificates.crt"
  }
}

# Permitted, not effective: see claim_capabilities in init/src/sys.rs.
capable() {
  $sudo setcap cap_net_admin,cap_net_raw+p "$context/netra-init"
  tar --xattrs --xattrs-include=security.capability --owner=0 --group=0 --mode=0755 \
    -C "$context" -cf "$context/netra-init.tar" netra-init
}

debian() {
  docker image inspect "$BASE" >/dev/null 2>&1 || docker pull -q "$BASE" 2>/dev/null && return
  BASE=netra-debian:bookworm
  docker image inspect "$BASE" >/dev/null 2>&1 && return
  echo "no $BASE to be had: making $BASE by debootstrap" >&2
  local root=$context/debian
  $sudo debootstrap --variant=minbase --include=iptables bookworm "$root" >&2
  $sudo rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/{doc,man,locale}
  $sudo tar -C "$root" -c . | docker import - "$BASE" >/dev/null
  $sudo rm -rf "$root"
}

# No Debian, but of this machine's what the Dockerfile and iptables need: seconds, where debootstrap
# takes minutes. The programs are looked for where Debian has them.
machine() {
  BASE=netra-machine:test
  local root=$context/machine programs library
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64,local/lib} "$root/etc"
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
  programs=(/usr/bin/dash /usr/bin/install /usr/sbin/xtables-{nft,legacy}-multi)
  cp --parents "${programs[@]}" "$root"
  ln -s dash "$root/usr/bin/sh"
  for name in ip{,6}tables-{nft,legacy}{,-save,-restore}; do cp -P "/usr/sbin/$name" "$root/usr/sbin"; done
  while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
  done < <(ldd "${programs[@]}" | grep -o '/[^ :]*\.so[^ ]*' | sort -u)
  cp -r /usr/lib/*-linux-gnu/xtables "$root"/usr/lib/*-linux-gnu/
  tar --owner=0 --group=0 -C "$root" -c . | docker import - "$BASE" >/dev/null
  rm -rf "$root"
}

build() {
  docker build --quiet --file "docker/$1.Dockerfile" --tag "$PREFIX$1:$TAG" \
    --build-arg VERSION="$version" --build-arg BASE="$BASE" \
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" "$context" \
    >"$context/log" 2>&1 || { cat "$context/log" >&2; exit 1; }
  docker image inspect --format "$PREFIX$1:$TAG {{.Size}} bytes, user {{.Config.User}}" "$PREFIX$1:$TAG"
  # What is given away is watched: hosts/sizes.
  local most bytes
  most=$(awk -v name="image-$1" '$1 == name { print $2 }' hosts/sizes)
  bytes=$(docker image inspect --format '{{.Size}}' "$PREFIX$1:$TAG")
  if [ "$PROFILE" = ship ] && [ -n "$most" ] && [ "$bytes" -gt "$most" ]; then
    echo "$1 is larger than hosts/sizes allows: $bytes bytes, $most at most" >&2
    exit 1
  fi
}

# As in a pod: no root, nothing but the two capabilities, nothing to write to. (Kubernetes can have
# no-new-privileges besides; Docker grants another user than root nothing before its program starts.)
try() {
  docker run --rm --network none --read-only --cap-drop ALL "$@"
}

for image in "${images[@]}"; do
  case $image in
    netra)
      static netra
      roots
      build netra
      try "${PREFIX}netra:$TAG" --service-name try --check-config
      ;;
    netra-init)
      static netra-init
      capable
      build netra-init
      try --cap-add NET_ADMIN "${PREFIX}netra-init:$TAG" apply | sed -n 1p
      ;;
    netra-init-iptables)
      static netra-init
      capable
      if [ "$BASE" = machine ]; then machine; else debian; fi
      build netra-init-iptables
      for backend in nft-native iptables-nft iptables-legacy; do
        try --cap-add NET_ADMIN --cap-add NET_RAW "${PREFIX}netra-init-iptables:$TAG" \
          apply --backend "$backend" | sed -n 1p
      done
      ;;
    netra-control)
      static netra-control
      roots
      build netra-control
      try "${PREFIX}netra-control:$TAG" crds | sed -n 2p
      ;;
    netra-test)
      static netra-loadtest
      build netra-test
      ;;
    *)
      echo "no such image: $image" >&2
      exit 2
      ;;
  esac
done
