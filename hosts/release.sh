#!/usr/bin/env bash
# Builds what is given away: static programs with their SBOM, notes and sums, in target/dist.
#   hosts/release.sh [x86_64] [aarch64]     all that can be built here, else only these
# From the environment:
#   TWICE=1        build everything once more, elsewhere, and compare: same source, same bytes
#   PROGRAMS       netra netra-init
#   OUT            target/dist
# The source is that of the last commit, whatever stands in the working tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROGRAMS=${PROGRAMS:-netra netra-init}
OUT=${OUT:-$PWD/target/dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
commit=$(git rev-parse --short=12 HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
rust=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is missing is named, and no reason to leave out the rest.
can_build() {
  local arch=$1 target=$1-unknown-linux-gnu
  if [ ! -d "$rust/lib/rustlib/$target" ]; then
    echo "*** $arch is left out: rustup target add $target ***" >&2
    return 1
  fi
  if [ "$arch" != "$(uname -m)" ] && ! command -v "$arch-linux-gnu-gcc" >/dev/null; then
    echo "*** $arch is left out: apt-get install gcc-${arch/_/-}-linux-gnu libc6-dev-arm64-cross ***" >&2
    return 1
  fi
}

# No path of this machine may stand in what is built, or two machines build two things.
build() {
  local source=$1 arch=$2 target=$2-unknown-linux-gnu packages=()
  for program in $PROGRAMS; do packages+=(-p "$program"); done
  local maps="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$rust=/rust --remap-path-prefix=$source=/netra"
  local c="-DMI_DEFAULT_DISALLOW_ARENA_ALLOC=1 -DMI_NO_ALIGNED_HINT=1 -fno-omit-frame-pointer -ffile-prefix-map=$cargo_home=/cargo"
  local linker=cc
  [ "$arch" = "$(uname -m)" ] || linker=$arch-linux-gnu-gcc
  local upper
  upper=$(tr a-z- A-Z_ <<<"$target")
  # Packed relocations: half a megabyte that no start has to read. Static programs need no loader for them.
  (cd "$source" && env "CARGO_TARGET_${upper}_LINKER=$linker" "CC_${target//-/_}=$linker" \
    RUSTFLAGS="-Cforce-frame-pointers=yes -Ctarget-feature=+crt-static -Cstrip=symbols -Clink-arg=-Wl,-z,pack-relative-relocs $maps" \
    CFLAGS="$c -ffile-prefix-map=$source=/netra" NETRA_COMMIT="$commit" CARGO_TARGET_DIR="$source/target" \
    cargo build --locked --quiet --profile ship --target "$target" "${packages[@]}")
  for program in $PROGRAMS; do
    local built=$source/target/$target/ship/$program
    if readelf -l "$built" | grep -q INTERP; then
      echo "$program for $arch is not static" >&2
      exit 1
    fi
    cp "$built" "$source/$program-$arch"
  done
}

source_at() {
  mkdir -p "$1"
  git archive HEAD | tar -C "$1" -x
}

# hosts/sizes: name and bytes at most. What becomes larger is decided about, and not found out later.
watch_size() {
  local name=$1 bytes=$2 most
  most=$(awk -v name="$name" '$1 == name { print $2 }' hosts/sizes)
  echo "$name: $bytes bytes, $most at most"
  [ -n "$most" ] && [ "$bytes" -le "$most" ] || { echo "$name is larger than hosts/sizes allows" >&2; exit 1; }
}

# That part of the changelog that is about this version, or about what has none yet.
notes() {
  awk -v version="$version" '
    /^## / { is_ours = ($2 == "[" version "]" || $2 == version || $2 == "Unreleased") && !is_over; is_over = is_ours }
    is_ours' CHANGELOG.md
}

sbom() {
  cargo cyclonedx --version >/dev/null 2>&1 || cargo install --debug --locked --quiet cargo-cyclonedx
  (cd "$1" && cargo cyclonedx --quiet --format json --target "$2-unknown-linux-gnu" --override-filename sbom)
  for program in $PROGRAMS; do
    local folder=$1
    [ "$program" = netra ] || folder=$1/${program#netra-}
    # Whose serial number and time would make each another one.
    python3 - "$folder/sbom.json" "$OUT/$program-$version-$2.cdx.json" "$SOURCE_DATE_EPOCH" <<'PYTHON'
import datetime, json, sys
source, to, epoch = sys.argv[1:]
bom = json.load(open(source))
bom.pop("serialNumber", None)
bom["metadata"]["timestamp"] = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).isoformat()
text = json.dumps(bom, indent=1, sort_keys=True)
open(to, "w").write(text.replace(source.rsplit("/", 1)[0], "/netra") + "\n")
print(to.rsplit("/", 1)[1] + ":", len(bom["components"]), "components")
PYTHON
  done
}

archs=("$@")
[ ${#archs[@]} -gt 0 ] || archs=(x86_64 aarch64)
mkdir -p "$OUT"
rm -f "$OUT"/*
source_at "$work/one"
[ -z "${TWICE:-}" ] || source_at "$work/another/and/longer"
for arch in "${archs[@]}"; do
  can_build "$arch" || continue
  build "$work/one" "$arch"
  if [ -n "${TWICE:-}" ]; then
    build "$work/another/and/longer" "$arch"
    for program in $PROGRAMS; do
      cmp "$work/one/$program-$arch" "$work/another/and/longer/$program-$arch" \
        || { echo "$program for $arch is not reproducible" >&2; exit 1; }
      echo "$program-$arch: twice the same, $(sha256sum <"$work/one/$program-$arch" | cut -c1-16)"
    done
  fi
  folder=netra-$version-$arch
  mkdir "$work/$folder"
  for program in $PROGRAMS; do
    watch_size "$program-$arch" "$(stat -c %s "$work/one/$program-$arch")"
    cp "$work/one/$program-$arch" "$work/$folder/$program"
  done
  cp LICENSE README.md CHANGELOG.md "$work/$folder/"
  [ -n "${NO_SBOM:-}" ] || sbom "$work/one" "$arch"
  tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$folder" \
    | gzip -n9 >"$OUT/$folder.tar.gz"
done
notes >"$OUT/NOTES.txt"
(cd "$OUT" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
