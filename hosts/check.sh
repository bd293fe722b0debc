#!/usr/bin/env bash
# Looks at a Debian package of netra as its user will: what is in it, that its programs run, that
# systemd takes its units, what lintian says.   hosts/check.sh target/debian/netra_*.deb
set -euo pipefail
deb=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

wanted() {
  cat <<'FILES'
./etc/netra/netra.env
./usr/bin/netra
./usr/bin/netra-init
./usr/lib/systemd/system/netra-init.service
./usr/lib/systemd/system/netra.service
./usr/lib/sysusers.d/netra.conf
./usr/share/bash-completion/completions/netra
./usr/share/bash-completion/completions/netra-init
./usr/share/doc/netra/README.md
./usr/share/doc/netra/changelog.Debian.gz
./usr/share/doc/netra/copyright
./usr/share/doc/netra/seccomp.json
./usr/share/fish/vendor_completions.d/netra-init.fish
./usr/share/fish/vendor_completions.d/netra.fish
./usr/share/man/man8/netra-init.8.gz
./usr/share/man/man8/netra.8.gz
./usr/share/zsh/vendor-completions/_netra
./usr/share/zsh/vendor-completions/_netra-init
FILES
}
dpkg-deb --fsys-tarfile "$deb" | tar -t | grep -v '/$' | LC_ALL=C sort >"$folder/files"
diff <(wanted | LC_ALL=C sort) "$folder/files" || { echo "these are not the files that it should have" >&2; exit 1; }

dpkg-deb -x "$deb" "$folder/root"
version=$(dpkg-deb -f "$deb" Version)
for program in netra netra-init; do
  said=$("$folder/root/usr/bin/$program" --version | head -1)
  [ "$said" = "$program ${version%-*}" ] || { echo "$program says it is $said" >&2; exit 1; }
done
NETRA_SERVICE_NAME=deb "$folder/root/usr/bin/netra" --check-config
"$folder/root/usr/bin/netra-init" print >/dev/null
# The rules redirect the whole machine: an update restarts what runs, and nothing starts by itself.
if dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./postinst | grep -E 'deb-systemd-invoke (re)?start'; then
  echo "the package starts something" >&2
  exit 1
fi
# There is no address of people to give.
lintian --allow-root --fail-on error --suppress-tags malformed-contact,bogus-mail-host-in-debian-changelog "$deb"
echo "good: $(basename "$deb"): $(wc -l <"$folder/files") files, both programs, lintian"
