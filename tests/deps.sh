#!/usr/bin/env bash
# What a build needs, looked for the way the build will use it, so that a site with its own modules needs no packages.
#
#   deps.sh "PKG-CONFIG NAMES" "MORE NAMES" "HEADERS" [COMMAND...]    0 when all are there, else 1 and their names
#   deps.sh --install PACKAGE...                                      Debian and Ubuntu: installs those not yet there
set -uo pipefail

install_packages() {
	local p missing=() as=()
	command -v apt-get >/dev/null || {
		echo "deps: this is not Debian or Ubuntu; install the equivalents of: $*" >&2
		return 1
	}
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		if ! sudo -n true 2>/dev/null; then
			echo "deps: these packages are missing; type this, then start make again:" >&2
			echo "  sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
			return 1
		fi
		as=(sudo -n)
	fi
	echo "deps: installing ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	"${as[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || echo "deps: apt-get update failed, going on" >&2
	"${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install "${missing[@]}" >/dev/null || {
		echo "deps: apt-get could not install: ${missing[*]}" >&2
		return 1
	}
}

library() { # where the loader looks
	local d dirs known
	known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null)
	[[ $known != *"$1"* ]] || return 0
	IFS=: read -ra dirs <<<"${LD_LIBRARY_PATH:-}"
	for d in "${dirs[@]}"; do
		[ ! -e "$d/$1" ] || return 0
	done
	return 1
}

if [ "${1:-}" = --install ]; then
	shift
	install_packages "$@"
	exit
fi

missing=()
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v "${CC:-gcc}" >/dev/null || missing+=("${CC:-gcc}")
if [ ${#missing[@]} = 0 ]; then
	for p in ${1:-} ${2:-}; do
		pkg-config --exists "$p" 2>/dev/null || missing+=("$p")
	done
	for h in ${3:-}; do
		if [[ $h == lib*.so* ]]; then
			library "$h" || missing+=("$h")
			continue
		fi
		echo "#include <$h>" | "${CXX:-g++}" -x c++ -fsyntax-only - 2>/dev/null || missing+=("$h")
	done
fi
for c in "${@:4}"; do
	command -v "$c" >/dev/null || missing+=("$c")
done
[ ${#missing[@]} = 0 ] && exit 0
echo "deps: not found: ${missing[*]}" >&2
exit 1
