#!/usr/bin/env bash
# make install: install.sh DESTDIR PREFIX BIN LIB
# Programs, the CUDA object when it was built, man pages and completion printed by the programs themselves, pipelines,
# Slurm scripts, data makers.
set -euo pipefail
dest=$1$2 bin=$3 lib=$4
cd "$(dirname "${BASH_SOURCE[0]}")/.."
share=$dest/share/lwm
install -d "$dest/bin" "$share" "$dest/share/man/man1" "$dest/share/bash-completion/completions"
for f in "$bin"/lwm-*; do
	name=$(basename "$f")
	install -m 755 "$f" "$dest/bin/$name"
	[ "$name" != lwm-kernel-ops ] || continue
	"$f" --help-man >"$dest/share/man/man1/$name.1"
	"$f" --help-completion >"$dest/share/bash-completion/completions/$name"
done
for f in "$lib"/*.so; do
	[ ! -e "$f" ] || install -D -m 755 "$f" "$dest/lib/$(basename "$f")"
done
for d in pipelines slurm datasets; do
	[ -d "$d" ] || continue
	(git ls-files -- "$d" 2>/dev/null || find "$d" -type f) | while IFS= read -r f; do
		mode=644
		[ ! -x "$f" ] || mode=755
		install -D -m "$mode" "$f" "$share/$f"
	done
done
install -m 644 LICENSE README.md "$share/"
echo "installed in $dest: $(find "$dest/bin" -name 'lwm-*' | wc -l) programs"
