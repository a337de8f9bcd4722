"""Walking over the mount, with and without the control tree, never triggers anything and never fails."""

import json
import os
import subprocess
import tarfile

import pytest

from harness import npy, untouched


def quiet(argv, allowed=(0,), **kw):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
    assert done.returncode in allowed and done.stderr == b"", (argv, done.returncode, done.stderr[-1000:])
    return done.stdout


WALKED = ["dtypes.npk", "deletions.npk", "names.npk", "segmented.npk", "control_names.npk", "scalar.npk", "empty.npk"]


@pytest.mark.parametrize("store", WALKED)
def test_grep(store, golden_mount):
    m = golden_mount(store)
    quiet(["grep", "-r", "-c", "no such text anywhere", str(m.path)], allowed=(0, 1))


@pytest.mark.parametrize("store", ["dtypes.npk", "names.npk", "control_names.npk"])
def test_the_control_tree_by_its_name(store, golden_mount, tmp_path):
    """cp -r, tar, grep -r and find of .numpack itself: text files have size 0, tar and cp take what they get."""
    m = golden_mount(store)
    before = m.last_errors()
    with untouched(m.store):
        quiet(["grep", "-r", "-l", "sel=", str(m.control())], allowed=(0, 1))
        quiet(["cp", "-r", "--", str(m.control()), str(tmp_path / "copy")])
        quiet(["find", str(m.control()), "-type", "f", "-size", "+0"])
        subprocess.run(["tar", "cf", str(tmp_path / "x.tar"), "-C", str(m.path), ".numpack"], check=True)
    assert m.last_errors() == before, "walking produced errors"
    assert (tmp_path / "copy" / "version").read_text() == (m.control() / "version").read_text()
    info = next((tmp_path / "copy" / "arrays").iterdir()) / "info"
    json.loads(info.read_text())


def test_show_control_and_a_walk_over_all(mount, golden_copy, tmp_path):
    store = golden_copy("append_after_drop.npk")
    with untouched(store), mount(store, "show_control") as m:
        out = quiet(["cp", "-r", str(m.path), str(tmp_path / "all")])
        assert out == b""
        assert (tmp_path / "all" / ".numpack" / "version").exists()
        quiet(["grep", "-r", "-c", "x", str(m.path)], allowed=(0, 1))
        quiet(["du", "-a", str(m.path)])
        quiet(["ls", "-laR", str(m.path)])
        assert m.last_errors() == []


def test_tar_and_cp_with_a_damaged_array(mount, golden_copy, tmp_path):
    """Programs report the one damaged array and take all others with them."""
    store = golden_copy("bad/data_short")
    with untouched(store), mount(store) as m:
        done = subprocess.run(["cp", "-r", str(m.path), str(tmp_path / "copy")], stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "LC_ALL": "C"})
        assert done.returncode == 1 and "victim.npy" in done.stderr and "good.npy" not in done.stderr, done
        assert (tmp_path / "copy" / "good.npy").read_bytes() == m.array("good").read_bytes()
        done = subprocess.run(["tar", "cf", str(tmp_path / "x.tar"), "-C", str(m.path), "."], stderr=subprocess.PIPE)
        with tarfile.open(tmp_path / "x.tar") as tar:
            assert tar.extractfile("./" + npy("good")).read() == m.array("good").read_bytes()
            # An open of a file without bytes is not needed to archive it, so tar may be content.
            assert done.returncode in (0, 1, 2)
