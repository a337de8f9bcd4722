"""npk's writing commands against numpy: what each changes, that all of it happens or nothing, and who is told to wait."""

import fcntl
import io
import json
import os
import struct
import subprocess

import numpy as np
import pytest

from harness import PATIENCE, program, require_fuse, same
from npkrun import BUSY, FAILED, USAGE, good, refused
from npkwrite import Spec, write_store

F_OFD_SETLK = 37  # <fcntl.h>, not in every fcntl module



def get(store, name):
    return np.load(io.BytesIO(good("get", store, name)))


def names(store):
    return good("ls", store).decode().splitlines()


def clean(store):
    """Sound, and without a journal: any version of NumPack reads it."""
    assert good("verify", store).decode().splitlines()[-1] == "clean: damage 0, warnings 0, notes 0"
    assert not (store / "numpackfs.journal").exists()


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(7)
    arrays = {"x": rng.standard_normal((50, 4)).astype("f4"), "y": np.arange(20), "c": np.array([1 + 2j, 3])}
    path = tmp_path / "s.npk"
    write_store(path, {"x": Spec(arrays["x"], deleted=[0, 7]), "y": Spec(arrays["y"]), "c": Spec(arrays["c"])})
    arrays["x"] = np.delete(arrays["x"], [0, 7], axis=0)
    return path, arrays


class unchanged:
    """Every array has its rows, and the store is sound."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.before = {n: get(self.path, n) for n in names(self.path)}

    def __exit__(self, kind, *_):
        if kind is None:
            assert names(self.path) == list(self.before)
            for n, a in self.before.items():
                same(get(self.path, n), a)
            clean(self.path)


# --- create and reset -------------------------------------------------------------------------------------------------


def test_create_makes_what_numpack_reads(tmp_path):
    good("create", tmp_path / "a.npk")
    assert names(tmp_path / "a.npk") == []
    clean(tmp_path / "a.npk")
    assert "is a store already" in refused(FAILED, "create", tmp_path / "a.npk")
    (tmp_path / "b").mkdir()
    good("create", tmp_path / "b")
    clean(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "letter.txt").write_text("x")
    assert "other files" in refused(FAILED, "create", tmp_path / "c")
    assert os.listdir(tmp_path / "c") == ["letter.txt"]


def test_create_drops_what_is_there_only_when_told(store):
    path, _ = store
    (path / "letter.txt").write_text("x")
    with unchanged(path):
        refused(FAILED, "create", path)
    good("create", "--drop-if-exists", path)
    assert names(path) == [] and (path / "letter.txt").exists() and not list(path.glob("data_*"))


def test_reset_wants_the_name(store):
    path, _ = store
    with unchanged(path):
        assert "--confirm s.npk" in refused(USAGE, "reset", path)
        refused(USAGE, "reset", path, "--confirm", "other")
    good("reset", f"{path}/", "--confirm", "s.npk")
    assert names(path) == []
    clean(path)


# --- save -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("ends", "<>")
def test_save_takes_every_npy(store, tmp_path, dtype, order, ends):
    path, _ = store
    rng = np.random.default_rng(3)
    for shape in [(7,), (5, 3), (4, 3, 2), (0, 3), (3, 0)]:
        a = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype="u1").view(dtype)[..., 0] if dtype != "?" else \
            rng.integers(0, 2, shape).astype("?")
        b = np.array(a, order=order, dtype=np.dtype(dtype).newbyteorder(ends))
        b[...] = a
        np.save(tmp_path / "v.npy", b)
        good("save", path, tmp_path / "v.npy")
        got = get(path, "v")
        assert got.tobytes() == np.ascontiguousarray(a).tobytes() and got.shape == shape and got.dtype == np.dtype(dtype)
        good("save", path, "w=-", input=(tmp_path / "v.npy").read_bytes())
        assert get(path, "w").tobytes() == got.tobytes()


def test_large_fortran_order_rows_wider_than_a_block(store, tmp_path):
    path, _ = store
    for shape in [(3, 400_000), (300_000, 3), (2, 700, 700), (1000, 10, 30)]:
        a = np.arange(np.prod(shape), dtype="u4").reshape(shape)
        np.save(tmp_path / "v.npy", np.asfortranarray(a))
        good("save", path, tmp_path / "v.npy")
        same(get(path, "v"), a)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_save_takes_every_npy_version(store, version):
    path, _ = store
    out = io.BytesIO()
    np.lib.format.write_array(out, np.arange(9).reshape(3, 3), version)
    good("save", path, "v=-", input=out.getvalue())
    same(get(path, "v"), np.arange(9).reshape(3, 3))


def test_save_is_all_or_nothing(store, tmp_path):
    path, _ = store
    np.save(tmp_path / "y.npy", np.zeros(3))
    np.save(tmp_path / "new.npy", np.zeros(3))
    whole = (tmp_path / "new.npy").read_bytes()
    for damaged, why in [(whole[:-1], "ends at byte"), (whole[:50], "cut short"), (b"", "empty"), (b"PK\3\4" + bytes(99), ".npy"),
                         (whole + b"x", "are not those of a .npy file"), (whole * 2, "follows"), (whole.replace(b"<f8", b"|O "), "")]:
        (tmp_path / "new.npy").write_bytes(damaged)
        with unchanged(path):
            line = refused(FAILED, "save", path, tmp_path / "y.npy", tmp_path / "new.npy")
            assert "new.npy" in line and why in line
    with unchanged(path):
        assert "nope.npy" in refused(FAILED, "save", path, tmp_path / "y.npy", tmp_path / "nope.npy")
        assert "'a/b'" in refused(FAILED, "save", path, f"a/b={tmp_path / 'y.npy'}")
        assert "names no array" in refused(FAILED, "save", path, "-")
        assert "0 dimensions" in refused(FAILED, "save", path, "s=-", input=npy_bytes(np.array(3.0)))


def npy_bytes(a):
    out = io.BytesIO()
    np.save(out, a)
    return out.getvalue()


# --- append, replace, drop --------------------------------------------------------------------------------------------


def test_append_adds_rows(store, tmp_path):
    path, arrays = store
    np.save(tmp_path / "x.npy", arrays["x"][:5])
    good("append", path, tmp_path / "x.npy", "y=-", input=npy_bytes(np.arange(3)) + npy_bytes(np.arange(0)) + npy_bytes(np.arange(4)))
    same(get(path, "x"), np.concatenate([arrays["x"], arrays["x"][:5]]))
    same(get(path, "y"), np.concatenate([arrays["y"], np.arange(3), np.arange(4)]))
    same(get(path, "c"), arrays["c"])
    clean(path)


def test_append_is_all_or_nothing(store, tmp_path):
    path, arrays = store
    np.save(tmp_path / "x.npy", arrays["x"][:5])
    for wrong, why in [(np.arange(3.0), "float64"), (np.zeros((2, 2), "i8"), "rows of (2)"), (np.array(3), "rows of ()")]:
        with unchanged(path):
            assert why in refused(FAILED, "append", path, tmp_path / "x.npy", "y=-", input=npy_bytes(wrong))
    with unchanged(path):
        refused(FAILED, "append", path, tmp_path / "x.npy", "y=-", input=npy_bytes(np.arange(3)) + npy_bytes(np.arange(3))[:-1])
        assert "nope" in refused(FAILED, "append", path, tmp_path / "x.npy", f"nope={tmp_path / 'x.npy'}")


@pytest.mark.parametrize("flags", [[], ["--atomic"]], ids=["plain", "atomic"])
@pytest.mark.parametrize("rows", ["3", "0:10", "::-1", "-1,-1,0,5:7", "all", "::7", "5:5"])
def test_replace_gives_rows_new_values(store, rows, flags):
    path, arrays = store
    x = arrays["x"]
    index = np.arange(len(x))
    parts = rows.replace("all", ":").split(",")
    pick = np.concatenate([np.atleast_1d(index[eval(f"np.s_[{p}]")]) for p in parts])
    new = np.random.default_rng(1).standard_normal((len(pick), 4)).astype("f4")
    good("replace", path, "x", "-", "--rows", rows, *flags, input=npy_bytes(new))
    want = x.copy()
    for i, r in zip(pick, new):
        want[i] = r
    same(get(path, "x"), want)
    clean(path)


def test_replace_refuses_what_does_not_fit(store):
    path, _ = store
    with unchanged(path):
        assert "2 rows" in refused(FAILED, "replace", path, "x", "-", "--rows", "0", input=npy_bytes(np.zeros((2, 4), "f4")))
        assert "float64" in refused(FAILED, "replace", path, "x", "-", "--rows", "0", input=npy_bytes(np.zeros((1, 4))))
        assert "48" in refused(FAILED, "replace", path, "x", "-", "--rows", "48", input=npy_bytes(np.zeros((1, 4), "f4")))
        refused(USAGE, "replace", path, "x", "-", "--rows", "0;1")
        refused(FAILED, "replace", path, "nope", "-")


def test_drop_hides_rows_of_several_arrays(store):
    path, arrays = store
    told = json.loads(good("drop", path, "x", "y", "--rows", "0,-1,3:5", "--json"))
    assert told == {"x": 4, "y": 4}
    for name in ("x", "y"):
        n = len(arrays[name])
        same(get(path, name), np.delete(arrays[name], [0, n - 1, 3, 4], axis=0))
    good("drop", path, "c", "--rows", "all")
    assert get(path, "c").shape == (0,)
    clean(path)
    good("compact", path, "x")
    assert [a["deleted"] for a in json.loads(good("ls", "-lj", path))] == [2, 0, 4]
    good("compact", path)
    assert [a["deleted"] for a in json.loads(good("ls", "-lj", path))] == [0, 0, 0]
    assert (path / "data_x.npkd").stat().st_size == get(path, "x").nbytes


def test_drop_is_all_or_nothing(store):
    path, _ = store
    with unchanged(path):
        assert "30" in refused(FAILED, "drop", path, "x", "y", "--rows", "30")
        refused(FAILED, "drop", path, "x", "nope", "--rows", "0")
        refused(FAILED, "drop", path, "x", "nope")
        refused(USAGE, "drop", path, "x", "--json")
        refused(USAGE, "drop", path, "x", "--rows", "0;1")
        refused(FAILED, "drop", path, "x", "--rows", "abc")


def test_drop_removes_arrays(store):
    path, _ = store
    good("drop", path, "x", "c")
    assert names(path) == ["y"] and sorted(p.name for p in path.glob("d*")) == ["data_y.npkd"]
    clean(path)


# --- clone, rename ----------------------------------------------------------------------------------------------------


def test_clone_and_rename(store):
    path, arrays = store
    good("clone", path, "x", "x2")
    same(get(path, "x2"), arrays["x"])
    with unchanged(path):
        assert "exists" in refused(FAILED, "clone", path, "x", "y")
        assert "exists" in refused(FAILED, "rename", path, "x", "y")
        refused(FAILED, "clone", path, "nope", "z")
        refused(FAILED, "rename", path, "nope", "z")
        refused(USAGE, "rename", path, "x", "y", "-x", "-f")
    good("rename", path, "x", "z")
    assert names(path) == ["c", "x2", "y", "z"]
    good("rename", path, "--exchange", "z", "y")
    same(get(path, "y"), arrays["x"])
    same(get(path, "z"), arrays["y"])
    good("rename", path, "--force", "z", "y")
    assert names(path) == ["c", "x2", "y"]
    same(get(path, "y"), arrays["y"])
    clean(path)


# --- other writers ----------------------------------------------------------------------------------------------------


def writing_commands(store):
    return [["create", "--drop-if-exists", store], ["save", store, "a=-"], ["append", store, "y=-"], ["replace", store, "y", "-"],
            ["drop", store, "x"], ["compact", store], ["clone", store, "x", "z"], ["rename", store, "x", "z"],
            ["reset", store, "--confirm", "s.npk"], ["import", store, "-", "-f", "npy", "-n", "a"]]


def test_a_mounted_store_is_left_alone_and_its_mountpoint_named(store, tmp_path, mount):
    path, arrays = store
    require_fuse()
    with mount(path, ro=False) as m:
        for command in writing_commands(path):
            line = refused(BUSY, *command, "--wait", "0")
            assert f"mounted at {m.path}" in line, line
        same(np.load(m.path / "x.npy"), arrays["x"])
        assert names(path) == ["c", "x", "y"]
    good("clone", path, "x", "z")


def test_umount_waits_for_the_end(store, tmp_path):
    require_fuse()
    path, arrays = store
    (tmp_path / "m nt").mkdir()
    for _ in range(5):
        subprocess.run([str(program("numpackfs")), str(path), str(tmp_path / "m nt")], check=True, timeout=PATIENCE)
        np.save(tmp_path / "m nt" / "y.npy", np.arange(1000))
        with open(tmp_path / "m nt" / "y.npy", "rb"):
            line = refused(BUSY, "umount", tmp_path / "m nt") if os.geteuid() == 0 else ""
            assert os.geteuid() != 0 or "in use" in line
        good("umount", f"{tmp_path / 'm nt'}/")
        good("append", path, "y=-", "--wait", "0", input=npy_bytes(np.arange(3)))
        same(get(path, "y"), np.concatenate([np.arange(1000), np.arange(3)]))
    assert "no store is mounted" in refused(FAILED, "umount", tmp_path / "m nt")
    assert "no store is mounted" in refused(FAILED, "umount", tmp_path / "nope" / "x")


def test_umount_waits_while_the_lock_has_no_name(store, tmp_path):
    """Between a daemon's last look at the lock file and its end the name is gone and the lock is not."""
    require_fuse()
    path, arrays = store
    (tmp_path / "m").mkdir()
    subprocess.run([str(program("numpackfs")), "-o", "ro", str(path), str(tmp_path / "m")], check=True, timeout=PATIENCE)
    with open(path / ".numpackfs.lock", "w") as f:
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(f, F_OFD_SETLK, whole)
        assert "has not ended" in refused(BUSY, "umount", tmp_path / "m", "--wait", "0")
    good("append", path, "x=-", "--wait", "0", input=npy_bytes(arrays["x"]))


def test_umount_of_a_reader_does_not_wait_for_the_writer(store, tmp_path, mount):
    """The store's lock is another mount's: who ends a read-only one has nothing to wait for."""
    path, arrays = store
    with mount(path, ro=False) as writer:
        (tmp_path / "r").mkdir()
        subprocess.run([str(program("numpackfs")), "-o", "ro", str(path), str(tmp_path / "r")], check=True, timeout=PATIENCE)
        good("umount", tmp_path / "r", "--wait", "0")
        same(writer.load("x"), arrays["x"])


@pytest.fixture
def helper(tmp_path):
    link = tmp_path / "umount.fuse.numpackfs"
    link.symlink_to(program("npk"))

    def call(*args):
        done = subprocess.run([str(link), *map(str, args)], capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stderr
    return call


def test_helper_of_umount_8(store, tmp_path, helper):
    """As umount(8) calls it: the mountpoint, then flags. It returns when the store is at rest."""
    require_fuse()
    path, _ = store
    at = tmp_path / "m"
    at.mkdir()
    for flags in [[], ["-n", "-v"], ["-f", "-t", "fuse.numpackfs"]]:
        subprocess.run([str(program("numpackfs")), str(path), str(at)], check=True, timeout=PATIENCE)
        np.save(at / "y.npy", np.arange(1000))
        with open(at / "y.npy", "rb"):
            status, why = helper(at, *flags)
            assert status == 32 and why.count("\n") <= 2 and why, (status, why)
        assert (at / "y.npy").exists()
        assert helper(at, *flags) == (0, "")
        assert not (at / "y.npy").exists()
        clean(path)
        same(get(path, "y"), np.arange(1000))
    status, why = helper(at)
    assert status == 32 and "no store is mounted" in why


@pytest.mark.parametrize("args, why", [
    ([], "one mountpoint"), (["x", "y"], "one mountpoint"), (["x", "-r"], "cannot become read-only"), (["x", "-q"], "no"),
    (["x", "-N", "1"], "namespaces"), (["x", "-t"], "no")])
def test_helper_of_umount_8_refuses(helper, args, why):
    status, said = helper(*args)
    assert status == USAGE and why in said and "usage: umount.fuse.numpackfs" in said


def test_wrong_usage(store):
    path, _ = store
    for args, why in [(["save", path], "operand"), (["save", path, "x.npy", "--wait", "soon"], "soon"), (["clone", path, "x"], "operand"),
                      (["drop", path], "operand"), (["umount"], "operand"), (["create", path, path], "too many"),
                      (["umount", "x", "-w", "x"], "--wait")]:
        assert why in refused(USAGE, *args)


def test_a_read_only_directory_says_so(store):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    path, _ = store
    os.chmod(path, 0o555)
    try:
        assert "s.npk" in refused(FAILED, "clone", path, "x", "z")
    finally:
        os.chmod(path, 0o755)


def test_stats_are_the_mounts(store, mount):
    path, arrays = store
    require_fuse()
    assert "is not mounted" in refused(FAILED, "stats", path)
    with mount(path) as m:
        before = json.loads(good("stats", m.path))
        (m.path / "x.npy").read_bytes()
        after = json.loads(good("stats", path))
        assert before.keys() == after.keys() == json.loads((m.path / ".numpack" / "stats").read_text()).keys()
        assert before != after


# --- batch ------------------------------------------------------------------------------------------------------------


def payload(line, a):
    data = npy_bytes(a)
    return f"{line} npy={len(data)}\n".encode() + data


def test_batch_runs_a_script_as_one_change(store):
    path, arrays = store
    x, y = arrays["x"], arrays["y"]
    script = b"# a comment\n\n" + payload('save "a b"', np.arange(3)) + payload("append y", np.arange(2)) + \
        payload("replace x rows=1,3", x[:2]) + payload("replace x rows=-1 atomic", x[5:6]) + \
        b"drop x y rows=0:2\ncompact x\nclone y z\nrename c \"c c\"\n"
    good("batch", path, input=script)
    want = x.copy()
    want[[1, 3]], want[-1] = x[:2], x[5]
    assert names(path) == ["a b", "c c", "x", "y", "z"]
    same(get(path, "a b"), np.arange(3))
    same(get(path, "x"), want[2:])
    same(get(path, "y"), np.concatenate([y, np.arange(2)])[2:])
    same(get(path, "z"), get(path, "y"))
    same(get(path, "c c"), arrays["c"])
    clean(path)
    good("batch", path, input=b"reset confirm=s.npk")
    assert names(path) == []


@pytest.mark.parametrize("line,why", [
    (b"frobnicate x", "no command"), (b"drop x", "say: drop"), (b"drop x y", "say: drop"), (b"drop nope rows=0", "nope"),
    (b"drop x rows=99", "99"), (b"clone x", "say: clone"), (b"clone x y", "exists"), (b"rename x y", "exists"), (b'clone "x z', "quote"),
    (b"reset confirm=other", "confirm=s.npk"), (b"save a npy=x", "npy=BYTES"), (b"save a npy=10\nabc", "before its payload"),
    (b"append y npy=3\nabc", ""), (b"replace x rows=0 quickly npy=3\nabc", "say: replace"), (b"clone x z\0", "NUL"), (b"compact nope", "nope"),
])
def test_a_script_with_a_mistake_does_nothing(store, line, why):
    path, _ = store
    with unchanged(path):
        told = refused(FAILED, "batch", path, input=b"drop x rows=0\nclone y new\n" + line + b"\n")
        assert why in told and "line 3" in told
