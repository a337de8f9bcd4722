#!/bin/sh
# A real NumPack store, mounted: `make demo` runs this with numpackfs in PATH and a PYTHON that has numpy and numpack.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
mnt=$work/digits
store=$work/digits.npk

cleanup() {
	status=$?
	trap - EXIT
	if mountpoint -q "$mnt"; then fusermount3 -u -z "$mnt"; fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

# Prints the command as one would type it there, then runs it.
run() {
	printf '\n$ %s\n' "$1"
	(cd "$work" && PATH=$PATH sh -euc "$1")
}

cp -r "$here/golden/digits.npk" "$store"
mkdir "$mnt"
demo() { "$PYTHON" "$here/demo.py" "$@"; }

echo "1,797 handwritten digits that the real NumPack wrote; 97 rows of them are dropped, and still lie in the files."
run 'numpackfs -o ro,watch=inotify digits.npk digits'
run 'ls -l digits'
run 'du --apparent-size -h digits/*.npy; du -h digits/*.npy    # the difference is what compacting would free'

printf '\n$ python: np.load("digits/images.npy", mmap_mode="r")[[0, 1, 1699]]\n'
demo show "$mnt" 0 1 1699

run 'cat digits/.numpack/arrays/images/shape'
run 'cp "digits/.numpack/arrays/labels/view/::100.npy" every100th.npy && ls -l every100th.npy'
run 'head -n 3 digits/.numpack/arrays/labels/data.csv'

# shellcheck disable=SC2016
run 'exec 3<>digits/.numpack/arrays/labels/getitem
  echo "sel=0:10 fmt=text" >&3; tr "\n" " " <&3; echo
  echo "sel=-1 fmt=text"   >&3; cat <&3'
run 'cat digits/.numpack/arrays/images/info'

printf '\n$ python: with NumPack("digits.npk") as npk: npk.drop("images", [0]); npk.drop("labels", [0])   # another process\n'
demo drop "$store" 0 1
demo wait "$mnt" 1699
printf '\n$ python: np.load("digits/images.npy", mmap_mode="r")[[0, 1, 1698]]      # the first digit is gone, the mount has followed\n'
demo show "$mnt" 0 1 1698

run 'fusermount3 -u digits'
