"""A mount that follows a store which another process, the real NumPack, changes: a new open shows the new rows, an old map
keeps the old ones, and no reader ever sees a mixture."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from harness import PATIENCE, expect_error, same, scaled, wait_for
from npkwrite import Spec, write_store

WATCHES = pytest.mark.parametrize("watch", ["inotify", "poll:50"])
X = np.arange(4000, dtype="f8").reshape(1000, 4)


def shows(m, name, want):
    """Waits until a new open gives `want`."""
    last = []

    def look():
        try:
            got = m.load(name)
        except (OSError, ValueError) as e:
            last[:] = [repr(e)]
            return False
        last[:] = [f"{got.dtype}{got.shape}"]
        return got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()

    try:
        wait_for("the mount shows the change", look)
    except AssertionError as e:
        raise AssertionError(f"{e}: last seen {last[0]}, wanted {want.dtype}{want.shape}") from None


def gone(m, name):
    wait_for(f"{name} is gone", lambda: not m.array(name).exists())
    assert m.array(name).name not in os.listdir(m.path)


@pytest.fixture
def written(real_numpack, tmp_path):
    store = tmp_path / "s.npk"
    real_numpack.open(store)
    real_numpack.save({"x": X, "other": np.arange(10)})
    real_numpack.close()
    return store, real_numpack


@WATCHES
def test_append(watch, written, mount):
    store, real = written
    more = np.ones((500, 4))
    with mount(store, f"watch={watch}") as m:
        old = np.load(m.array("x"), mmap_mode="r")
        ino = m.array("x").stat().st_ino
        real.open(store)
        real.append({"x": more})
        real.close()
        shows(m, "x", np.concatenate([X, more]))
        same(old, X)
        same(m.load("other"), np.arange(10))
        assert m.array("x").stat().st_size == 128 + 1500 * 32
        assert (m.control("x") / "shape").read_text() == "1500 4\n"
        assert m.array("other").stat().st_ino != ino
        same(np.load(m.view("x", "-1")), more[-1:])
        del old


@WATCHES
def test_drop_rows(watch, written, mount):
    store, real = written
    rows = list(range(0, 1000, 3))
    with mount(store, f"watch={watch}") as m:
        old = np.load(m.array("x"), mmap_mode="r")
        same(old[:10], X[:10])          # the rest of the old rows is read after the change only
        generation = int((m.control("x") / "generation").read_text())
        ino = m.array("x").stat().st_ino
        real.open(store)
        real.drop_rows("x", rows)
        real.close()
        want = np.delete(X, rows, axis=0)
        shows(m, "x", want)
        same(old, X)
        assert int((m.control("x") / "generation").read_text()) != generation
        assert m.array("x").stat().st_ino != ino, "another generation is another file"
        same(np.load(m.control("x") / "deleted.npy"), np.array(rows, "<u8"))
        assert (m.control("x") / "deleted").read_text() == f"{len(rows)}\n"
        del old


@WATCHES
def test_compact(watch, written, mount):
    store, real = written
    rows = list(range(0, 1000, 3))
    want = np.delete(X, rows, axis=0)
    real.open(store)
    real.drop_rows("x", rows)
    real.close()
    with mount(store, f"watch={watch}") as m:
        old = np.load(m.array("x"), mmap_mode="r")
        same(old[:10], want[:10])
        blocks = m.array("x").stat().st_blocks
        real.open(store)
        real.update("x")
        real.close()
        try:
            wait_for("the bitmap is gone for the mount too", lambda: (m.control("x") / "deleted").read_text() == "0\n")
            shows(m, "x", want)
            same(old, want)
        finally:
            del old
        assert m.array("x").stat().st_blocks < blocks


@WATCHES
def test_an_array_goes_and_comes(watch, written, mount):
    store, real = written
    with mount(store, f"watch={watch}") as m:
        old = np.load(m.array("x"), mmap_mode="r")
        same(old[:10], X[:10])
        assert sorted(os.listdir(m.path)) == ["other.npy", "x.npy"]
        real.open(store)
        real.drop_array("x")
        real.close()
        gone(m, "x")
        assert os.listdir(m.path) == ["other.npy"] and os.listdir(m.control() / "arrays") == ["other"]
        expect_error(errno.ENOENT, os.open, m.array("x"), os.O_RDONLY)
        expect_error(errno.ENOENT, os.stat, m.view("x", "0"))
        same(old, X)
        real.open(store)
        again = np.arange(77, dtype="i2")
        real.save({"x": again, "new": np.arange(5)})
        real.close()
        shows(m, "x", again)
        shows(m, "new", np.arange(5))
        assert sorted(os.listdir(m.path)) == ["new.npy", "other.npy", "x.npy"]
        same(old, X)
        del old


@WATCHES
def test_saved_over_with_another_shape(watch, written, mount):
    """The library writes over the file in place; the new open shows the new array whatever the old one does."""
    store, real = written
    with mount(store, f"watch={watch}") as m:
        same(m.load("x"), X)
        real.open(store)
        bigger = np.arange(9000, dtype="i4").reshape(3000, 3)
        real.save({"x": bigger})
        real.close()
        shows(m, "x", bigger)


@WATCHES
def test_a_handle_that_was_open_keeps_what_it_opened(watch, written, mount):
    """Not a map: plain reads through an old descriptor give the old rows, also those not read before."""
    store, real = written
    rows = [0, 1, 2, 500]
    with mount(store, f"watch={watch}") as m:
        fds = [os.open(m.array("x"), os.O_RDONLY), os.open(m.view("x", "::2"), os.O_RDONLY),
               os.open(m.control("x") / "batches" / "100" / "3.npy", os.O_RDONLY)]
        wants = [X, X[::2], X[300:400]]
        real.open(store)
        real.drop_rows("x", rows)
        real.close()
        shows(m, "x", np.delete(X, rows, axis=0))
        for fd, want in zip(fds, wants):
            assert os.pread(fd, want.nbytes, 128) == want.tobytes()
            os.close(fd)
        same(np.load(m.view("x", "::2")), np.delete(X, rows, axis=0)[::2])
        same(np.load(m.control("x") / "batches" / "100" / "3.npy"), np.delete(X, rows, axis=0)[300:400])


@WATCHES
def test_beside_a_mount_that_writes(watch, written, mount):
    """What it does not change keeps its generation, while its journal grows and over its checkpoint: a map of it is the file that a
    new open gives, and no cache is dropped."""
    store, _ = written
    y = np.arange(300, dtype="i2")
    with mount(store, ro=False) as w, mount(store, f"watch={watch}") as m:
        np.save(w.array("y"), y)
        shows(m, "y", y)
        same(m.load("other"), np.arange(10))

        def files():
            return {name: (m.array(name).stat().st_ino, (m.control(name) / "generation").read_text()) for name in ("y", "other")}

        before, want = files(), X
        for i in range(5):
            (w.control("x") / "append.raw").write_bytes(X[:7].tobytes())
            want = np.concatenate([want, X[:7]])
            shows(m, "x", want)
            (w.control("x") / "drop").write_text("1\n")
            want = np.delete(want, 1, axis=0)
            shows(m, "x", want)
            np.save(w.view("x", "0"), want[:1] + 1)
            want[0] += 1
            shows(m, "x", want)
            assert files() == before
        (w.control() / "sync").write_text("1\n")
        np.save(w.array("z"), y)
        shows(m, "z", y)
        assert files()["other"] == before["other"]
        same(m.load("y"), y)
        same(m.load("x"), want)


def test_a_read_only_mount_watches_by_itself(written, mount):
    """watch=inotify is built-in; a read-write mount has nothing to watch, and complains only about what somebody wrote."""
    store, real = written
    with mount(store) as m:
        real.open(store)
        real.append({"x": np.ones((5, 4))})
        real.close()
        shows(m, "x", np.concatenate([X, np.ones((5, 4))]))
    with mount(store, ro=False) as m:
        assert "watch=" not in m.log_text()
    with mount(store, "watch=inotify", ro=False) as m:
        assert "watch= is for read-only mounts" in m.log_text()


def test_without_watch_nothing_changes(written, mount):
    store, real = written
    with mount(store, "watch=off") as m:
        same(m.load("x"), X)
        real.open(store)
        real.append({"x": np.ones((5, 4))})
        real.close()
        same(m.load("x"), X)


@WATCHES
def test_damage_that_comes_and_goes(watch, mount, tmp_path):
    """Metadata that turns bad does not take a running mount down; when it is good again the mount goes on following."""
    store, _ = write_store(tmp_path / "s.npk", {"a": np.arange(5)})
    with mount(store, f"watch={watch}") as m:
        same(m.load("a"), np.arange(5))
        good = (store / "metadata.npkm").read_bytes()
        (store / "metadata.npkm").write_bytes(b"NPKBjunk")
        wait_for("the log says so", lambda: "metadata.npkm" in (m.control() / "log").read_text())
        same(m.load("a"), np.arange(5))
        (store / "metadata.npkm").write_bytes(good)
        write_store(store, {"a": np.arange(5), "b": np.arange(6)})
        shows(m, "b", np.arange(6))
        same(m.load("a"), np.arange(5))


@WATCHES
def test_an_independent_writer(watch, mount, tmp_path):
    """The same with a writer that replaces files whole: many rounds, each one seen."""
    store, _ = write_store(tmp_path / "s.npk", {"a": np.arange(5)})
    rng = np.random.default_rng(23)
    with mount(store, f"watch={watch}") as m:
        for i in range(scaled(30)):
            x = rng.integers(0, 1000, int(rng.integers(1, 2000)))
            gone_rows = sorted(rng.choice(len(x), int(rng.integers(0, len(x))), replace=False).tolist())
            # A new file for each round, as a rename-over gives: the old generation keeps its inode.
            (store / "data_a.npkd").unlink()
            (store / "deleted_a.npkb").unlink(missing_ok=True)
            _, specs = write_store(store, {"a": Spec(x, deleted=gone_rows or None)})
            shows(m, "a", specs["a"].logical())


@WATCHES
@pytest.mark.parametrize("held", [True, False], ids=["mapped", "not open"])
def test_between_data_and_metadata(watch, held, mount, tmp_path):
    """The library compacts in steps: new data, no bitmap, and only when it closes the metadata. For as long as they disagree
    the mount goes on showing the rows of before, also to new opens and when nobody has the array open."""
    x = np.arange(3000).reshape(1000, 3)
    drop = list(range(0, 1000, 4))
    store, specs = write_store(tmp_path / "s.npk", {"x": Spec(x, deleted=drop, mtime_us=10**15), "y": np.arange(3)})
    want = specs["x"].logical()
    with mount(store, f"watch={watch}") as m:
        same(m.load("x"), want)
        old = np.load(m.array("x"), mmap_mode="r") if held else None
        (store / "data_x.npkd.tmp").write_bytes(want.tobytes())
        (store / "data_x.npkd.tmp").rename(store / "data_x.npkd")
        (store / "deleted_x.npkb").unlink()
        # Long enough for the mount to have looked several times; another array tells that it did.
        write_store(tmp_path / "other", {"x": Spec(x, write_data=False, mtime_us=10**15), "y": np.arange(3), "z": np.arange(4)})
        (tmp_path / "other" / "data_z.npkd").rename(store / "data_z.npkd")
        (tmp_path / "other" / "metadata.npkm").rename(store / "metadata.npkm")      # x's entry as it was, 1000 rows
        shows(m, "z", np.arange(4))
        for _ in range(50):
            same(m.load("x"), want)
            assert (m.control("x") / "shape").read_text() == "750 3\n"
            assert m.array("x").stat().st_size == 128 + want.nbytes
        del old
        write_store(tmp_path / "other", {"x": Spec(want, write_data=False), "y": np.arange(3), "z": np.arange(4)})
        (tmp_path / "other" / "metadata.npkm").rename(store / "metadata.npkm")
        wait_for("the new state is taken over", lambda: (m.control("x") / "deleted").read_text() == "0\n")
        same(m.load("x"), want)


READER = """
import io, mmap, os, sys
import numpy as np
path, stop = sys.argv[1], sys.argv[2]
seen, errors, n = set(), {}, 0
while not os.path.exists(stop) or not seen:
    n += 1
    try:
        with open(path, "rb", buffering=0) as f:    # once: two opens may see two generations
            if n % 2:
                pages = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
                x = np.load(io.BytesIO(pages))
                pages.close()
            else:
                x = np.load(f)
    except (OSError, ValueError) as e:
        errors[repr(e)] = errors.get(repr(e), 0) + 1
        continue
    # Every state is rows of equal numbers 0..n-1: a mixture would show.
    if x.ndim != 2 or x.shape[1] != 3 or not (x == np.arange(len(x))[:, None]).all():
        bad = np.flatnonzero((x != np.arange(len(x))[:, None]).any(axis=1))
        print("mixed", x.shape, bad[:5], x[bad[:3]].tolist(), flush=True)
        sys.exit(1)
    if not seen:
        print("reading", flush=True)
    seen.add(len(x))
print(f"{len(seen)} states in {n} opens, errors {errors}")
"""


@WATCHES
def test_two_readers_while_the_store_changes(watch, real_numpack, mount, tmp_path):
    """Two processes open, map and read all the time while the library appends, drops, compacts and re-creates: each array they
    get is one of the states that the store was in, whole, and no open fails."""
    store, stop = tmp_path / "s.npk", tmp_path / "stop"

    def rows(n):
        return np.repeat(np.arange(n)[:, None], 3, axis=1)

    real_numpack.open(store)
    real_numpack.save({"x": rows(500)})
    real_numpack.close()
    with mount(store, f"watch={watch}") as m:
        same(m.load("x"), rows(500))
        readers = [subprocess.Popen([sys.executable, "-c", READER, str(m.array("x")), str(stop)], stdout=subprocess.PIPE, text=True)
                   for _ in range(2)]
        assert [r.stdout.readline() for r in readers] == ["reading\n"] * 2
        n = 500
        for k in range(1, scaled(24) + 1):
            real_numpack.open(store)
            if k % 4 == 1:
                real_numpack.append({"x": rows(n + 300)[n:]})
                n += 300
            elif k % 4 == 2:
                real_numpack.drop_rows("x", list(range(n - 100, n)))    # the tail, so that every state is rows 0..n-1
                n -= 100
            elif k % 4 == 3:
                real_numpack.update("x")
            else:
                # Appending to an array that has a bitmap runs into a defect of the library, hence after a compact.
                real_numpack.append({"x": rows(n + 64)[n:]})
                n += 64
            real_numpack.close()
            shows(m, "x", rows(n))
        stop.touch()
        said = [r.communicate(timeout=PATIENCE)[0] for r in readers]
        assert [r.returncode for r in readers] == [0, 0], said
        assert all("errors {}" in s for s in said), f"opens failed: {said}"
        shows(m, "x", rows(n))


def test_views_of_an_array_that_went_away(written, mount):
    store, real = written
    with mount(store, "watch=poll:50") as m:
        view = np.load(m.view("x", "::2"), mmap_mode="r")
        same(view[:5], X[:10:2])
        real.open(store)
        real.drop_array("x")
        real.close()
        gone(m, "x")
        same(view, X[::2])
        expect_error(errno.ENOENT, os.stat, m.view("x", "::2"))
        del view


def test_a_store_that_is_deleted(mount, tmp_path):
    """rm -r of the store under a watching mount: an old map keeps its rows, and the mount can be unmounted."""
    import shutil
    store, _ = write_store(tmp_path / "s.npk", {"a": np.arange(5000)})
    with mount(store, "watch=inotify") as m:
        old = np.load(m.array("a"), mmap_mode="r")
        same(old[:5], np.arange(5))
        shutil.rmtree(store)
        assert (m.control() / "version").read_text()
        same(old, np.arange(5000))
        del old
