#!/bin/sh
# check_symbols.sh BUILD - every global name carries the prefix of its part: npk_ and npki_ in engine/, npkv_ in simd/,
# npkfs_ in fs/, npkt_ in tools/; main is free. The shared library exports npk_ only.
set -eu
build=${1:?usage: check_symbols.sh BUILD}
cd "$(dirname "$0")/.."

strays() { # part, pattern of allowed names
	for object in "$build/$1"/*.o; do
		[ -e "$object" ] || continue
		# Defined and global; what a sanitizer or the compiler adds begins with two underscores or has a dot.
		nm -g --defined-only "$object" | awk -v ok="^($2)" -v o="$object" '
			NF == 3 && $3 !~ ok && $3 !~ /^__/ && $3 !~ /\./ { print o ": " $3 }'
	done
}

count=0
for part in engine fs tools; do
	n=$(find "$build/$part" -name '*.o' 2>/dev/null | wc -l)
	if [ "$n" -eq 0 ]; then
		echo "check-symbols: nothing of $part is built in $build" >&2
		exit 1
	fi
	count=$((count + n))
done
bad=$(
	strays engine 'npk_|npki_'
	strays simd 'npkv_'
	strays fs 'npkfs_|main$'
	strays tools 'npkt_|main$'
	nm -D --defined-only "$build/libnumpack.so" | awk 'NF >= 2 && $NF !~ /^npk_/ && $NF !~ /^(NUMPACK|LIBNUMPACK|NPK)_[0-9.]+$/ && $NF !~ /^(_init|_fini|__)/ \
		{ print "libnumpack.so exports " $NF }' | sed 's/@@.*//'
)
if [ -n "$bad" ]; then
	echo "$bad" >&2
	exit 1
fi
echo "check-symbols: $count objects, every global name has its prefix"
