"""make demo runs to its end and shows what it promises, as root and as a normal user."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from harness import BUILD, ROOT, TESTS, clean_environment, require_fuse


# In a mount namespace of its own /dev/fuse gets the mode that distributions give it, and the directories named before "--"
# are reachable: what lies behind one that is closed to others (root's home, mostly) is mounted over it under its own name.
# The rest runs as nobody.
AS_NOBODY = """
if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    [ -e "$0/fuse" ] || mknod -m 666 "$0/fuse" c 10 229
    mount --bind "$0/fuse" /dev/fuse
fi
dirs=
while [ "$1" != -- ]; do
    dirs="$dirs $1"
    mkdir -p "$0/kept$1"
    mount --bind "$1" "$0/kept$1"
    shift
done
shift
for dir in $dirs; do
    closed= up=$dir
    while [ "$up" != / ]; do
        up=$(dirname "$up")
        [ $((0$(stat -c %a "$up") & 1)) = 1 ] || closed=$up
    done
    [ -z "$closed" ] || mount -t tmpfs -o mode=755 none "$closed"
done
for dir in $dirs; do
    [ -d "$dir" ] || { mkdir -p "$dir"; mount --bind "$0/kept$dir" "$dir"; }
done
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


def check(work, user=()):
    env = {**clean_environment(work), "PATH": f"{BUILD}:{os.environ['PATH']}", "PYTHON": sys.executable, "TMPDIR": str(work)}
    done = subprocess.run([*user, "sh", str(TESTS / "demo.sh")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=work,
                          env=env)
    out = done.stdout
    assert done.returncode == 0, out
    for want in ("(1700, 8, 8), mapped", "(1699, 8, 8), mapped", "1700 8 8\n", "images.npy: 1699 rows", "labelled ",
                 "$ fusermount3 -u digits"):
        assert want in out, out
    assert sum("@@" in line for line in out.splitlines()) >= 8, "no picture"
    assert os.listdir(work) == [], "the demo leaves something behind"


def test_demo(tmp_path):
    require_fuse()
    check(tmp_path)


def test_demo_as_a_normal_user():
    """Through the set-uid fusermount3, with nothing that only root may do."""
    require_fuse()
    if os.getuid() != 0:
        pytest.skip("the tests run as a normal user anyway")
    with tempfile.TemporaryDirectory() as base:     # pytest's own directories are closed to others
        os.chmod(base, 0o755)
        work = pathlib.Path(base) / "work"
        work.mkdir()
        os.chmod(work, 0o777)
        user = ["unshare", "--mount", "sh", "-euc", AS_NOBODY, base, sys.base_prefix, str(ROOT), "--"]
        # Through a shell: what setpriv itself starts still has root's right to reach it.
        able = subprocess.run([*user, "sh", "-c", '"$0" -c "import numpy, numpack" && test -r "$1" && "$2" -V >/dev/null', sys.executable,
                               str(TESTS / "demo.sh"), str(BUILD / "numpackfs")], cwd=work, stderr=subprocess.PIPE, text=True, env=clean_environment(work))
        if able.returncode:
            pytest.skip(f"a normal user cannot run {sys.executable} or {BUILD}/numpackfs here: {(able.stderr.splitlines() or ['?'])[-1]}")
        check(work, user)
