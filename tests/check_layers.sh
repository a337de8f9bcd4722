#!/bin/sh
# check_layers.sh BUILD - every include goes downward: fs -> engine/numpack.h, tools -> engine/numpack.h, engine -> simd/npkv.h,
# simd -> nothing of ours. Read from what the compiler itself wrote into its .d files, so no include escapes.
set -eu
build=${1:?usage: check_layers.sh BUILD}
cd "$(dirname "$0")/.."

bad=$(find "$build/engine" "$build/simd" "$build/fs" "$build/tools" -name '*.d' 2>/dev/null | sort | while read -r dep; do
	part=${dep#"$build"/}
	part=${part%%/*}
	# One prerequisite a line: the rule's own target and the empty rules that -MP adds end with a colon.
	tr -s ' \\\n' '\n' <"$dep" | grep -v ':$' | sort -u | while read -r file; do
		case $file in
		/*) continue ;; # the system's
		esac
		# "engine/../simd/x.h" is what it is, not what it looks like.
		real=$(realpath --relative-to=. "$file")
		case $part:$real in
		fs:fs/* | fs:engine/numpack.h) ;;
		tools:tools/* | tools:engine/numpack.h) ;;
		engine:engine/* | engine:simd/npkv.h) ;;
		simd:simd/*) ;;
		*) echo "$dep: $part must not include $real" ;;
		esac
	done
done)

checked=$(find "$build/engine" "$build/fs" "$build/tools" -name '*.d' 2>/dev/null | wc -l)
for part in engine fs tools; do
	if ! ls "$build/$part"/*.d >/dev/null 2>&1; then
		echo "check-layers: nothing of $part is built in $build" >&2
		exit 1
	fi
done
if [ -n "$bad" ]; then
	echo "$bad" >&2
	exit 1
fi
echo "check-layers: $checked files, every include goes downward"
