#!/bin/sh
# An array of a mounted store from the shell: save, read, append, drop, search, write in place, a transaction.
#
#     contrib/examples/tour.sh MOUNTPOINT        # mounted read-write; writes the arrays `tour` and `kept`
#
# A command is carried out when the write returns: a refused one fails its echo, and last_error says why.
[ $# -eq 1 ] || { echo "usage: $0 MOUNTPOINT" >&2; exit 2; }
set -eu
m=$1 control=$1/.numpack/arrays/tour
trap '[ $? -eq 0 ] || tail -n 1 "$m/.numpack/last_error" >&2' EXIT

# The header that numpy writes, 128 bytes. One without rows makes an empty array of three columns.
printf "\223NUMPY\001\000v\000%-117s\n" "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }" > "$m/tour.npy"
for i in 0 1 2 3 4 5; do echo "$i,$((i * i)),1"; done > "$control/append.csv"
echo "saved $(cat "$control/shape")"

od -An -v -w12 -tf4 -j128 "$m/tour.npy" | awk '{ sum += $1 + $2 + $3 } END { print "sum", sum }'

printf '6,36,1\n7,49,1\n' > "$control/append.csv"
echo "appended $(cat "$control/shape")"

echo '0,-1' > "$control/drop"
echo "dropped $(cat "$control/shape")"

exec 3<>"$control/search" # what is written on 3 is answered on 3
echo 'k=2 metric=l2sq row=0' >&3
while read -r row score <&3; do echo "near $row $score"; done
exec 3>&-

# 100 as a float32, to row 0, column 2.
printf '\000\000\310B' | dd of="$m/tour.npy" bs=1 seek=$((128 + 8)) conv=notrunc status=none
echo "wrote $(od -An -tf4 -j136 -N4 "$m/tour.npy" | tr -d ' ')"

# A directory is a transaction: the whole tree again. Nobody outside sees what is done in it before the commit.
t=$m/.numpack/batch/tour.$$
mkdir "$t"
cp "$t/tour.npy" "$t/kept.npy"
echo '0:2' > "$t/.numpack/arrays/tour/drop"
echo commit > "$t/ctl"
for name in kept tour; do echo "$name $(cat "$m/.numpack/arrays/$name/shape")"; done
