#!/bin/sh
# The five rows most like row ROW of an array of a mounted store: a line each, its index and its cosine.
#
#     contrib/examples/search.sh MOUNTPOINT ARRAY ROW
#
# The handle holds the conversation: what is written on 3 is answered on 3. A refused query says why there, too.
[ $# -eq 3 ] || { echo "usage: $0 MOUNTPOINT ARRAY ROW" >&2; exit 2; }
exec 3<>"$1/.numpack/arrays/$2/search" || exit 1
echo "k=5 metric=cosine row=$3" 2>/dev/null >&3 || { cat <&3 >&2; exit 1; }
cat <&3
