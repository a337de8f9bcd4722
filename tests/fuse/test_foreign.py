"""The real NumPack, which knows no lock, on a store that is mounted read-write: what it puts back is undone, what it changes is
never overwritten, and after `reload` both sides' changes are there."""

import errno
import json
import os
import shutil
import signal

import numpy as np
import pytest

import npkread
from harness import expect_error, same, wait_for

X = np.arange(4000, dtype="f8").reshape(1000, 4)
Y = np.arange(500, dtype="i4")
MORE = np.full((30, 4), -1.5)


@pytest.fixture
def written(real_numpack, tmp_path):
    store = tmp_path / "s.npk"
    real_numpack.open(store)
    real_numpack.save({"x": X, "y": Y})
    real_numpack.close()
    return store, real_numpack


def log(m):
    return (m.control() / "log").read_text()


def ctl(m, line):
    (m.control() / "ctl").write_text(line + "\n")


def refuses(m):
    """Waits until nothing can be changed, and returns why."""
    def tried():
        try:
            (m.control("y") / "drop").write_text(":0\n")     # no row: only asks
        except OSError as e:
            return e.errno == errno.EBUSY
        return False

    wait_for("changes are refused", tried)
    why = [json.loads(line) for line in (m.control() / "last_error").read_text().splitlines()]
    assert any("another program" in e["message"] for e in why), why
    expect_error(errno.EBUSY, ctl, m, "sync")
    expect_error(errno.EBUSY, (m.control("y") / "append.raw").write_bytes, Y[:1].tobytes())
    return why[-1]["message"]


def on_disk(store):
    """What a reader with 0.7's rules finds; the store must be sound."""
    assert npkread.complaints(store) == []
    return npkread.read(store)


def both_ways_out(mount, store, tmp_path):
    """What a mount refuses can be opened as the other program left it, or as we did: both are whole."""
    status, message = mount.refused(store, ro=False)
    assert status == 3 and "numpackfs.base" in message, (status, message)
    theirs, ours = tmp_path / "theirs.npk", tmp_path / "ours.npk"
    for copy in theirs, ours:
        shutil.copytree(store, copy)
    for name in os.listdir(theirs):
        if name.startswith("numpackfs.journal"):
            (theirs / name).unlink()
    (ours / "numpackfs.base").rename(ours / "metadata.npkm")
    out = []
    for copy in theirs, ours:
        with mount(copy, ro=False) as m:
            out.append({p.stem: np.load(p) for p in m.path.glob("*.npy")})
        assert not [n for n in os.listdir(copy) if n.startswith("numpackfs")]
        got = npkread.read(copy)       # files and rows that only the other side knows are left
        assert got.keys() == out[-1].keys()
        for name in got:
            same(got[name], out[-1][name])
    return out


def test_who_only_reads_is_no_harm(written, mount):
    """It rewrites the metadata with the same entries at close: nothing is refused, nobody is warned."""
    store, real = written
    with mount(store, ro=False) as m:
        before = (store / "metadata.npkm").stat().st_ino
        np.save(m.array("y"), Y[::-1])
        real.open(store)
        same(real.load("x"), X)
        real.close()
        assert (store / "metadata.npkm").stat().st_ino != before, "it did not rewrite the metadata: this tests nothing"
        (m.control("x") / "append.raw").write_bytes(MORE.tobytes())
        ctl(m, "sync")
        assert "another program" not in log(m)
    got = on_disk(store)
    same(got["x"], np.concatenate([X, MORE]))
    same(got["y"], Y[::-1])


@pytest.mark.parametrize("end", ["goes on", "is unmounted", "is killed"])
def test_an_old_handle_is_closed(end, written, mount, tmp_path):
    """It puts back the entries that it read before our changes: ours are written again, with a warning, also when the next
    thing is the end. A dead mount cannot know whose they are."""
    store, real = written
    m = mount.start(store, ro=False)
    real.open(store)
    same(real.load("x"), X)
    (m.control("x") / "append.raw").write_bytes(MORE.tobytes())
    np.save(m.array("y"), Y[::-1])
    np.save(m.array("new"), Y)
    ctl(m, "sync")
    if end == "is killed":
        mount.kill(m)
    real.close()
    if end == "goes on":
        wait_for("there is a warning", lambda: "earlier metadata" in log(m))
        assert "earlier metadata" in (m.control() / "last_error").read_text()
        same(npkread.read(store)["x"], np.concatenate([X, MORE]))
        (m.control("x") / "append.raw").write_bytes(MORE.tobytes())
        same(m.load("x"), np.concatenate([X, MORE, MORE]))
    if end == "is killed":
        _, got = both_ways_out(mount, store, tmp_path)
    else:
        mount.stop(m)
        got = on_disk(store)
    same(got["x"], np.concatenate([X, MORE, MORE] if end == "goes on" else [X, MORE]))
    same(got["y"], Y[::-1])
    same(got["new"], Y)


@pytest.mark.parametrize("how", ["ctl", "SIGHUP", "unmount"])
def test_both_change_different_arrays(how, written, mount):
    store, real = written
    with mount(store, ro=False) as m:
        same(m.load("x"), X)
        np.save(m.array("y"), Y[::-1])
        np.save(m.array("ours"), Y)
        real.open(store)
        real.append({"x": MORE})
        real.save({"theirs": X})
        real.close()
        refuses(m)
        same(m.load("x"), X)
        same(m.load("y"), Y[::-1])
        if how == "ctl":
            ctl(m, "reload")
        elif how == "SIGHUP":
            os.kill(m.pid, signal.SIGHUP)
            wait_for("their changes are there", lambda: m.array("theirs").exists() and len(m.load("x")) == 1030)
        if how != "unmount":
            same(m.load("x"), np.concatenate([X, MORE]))
            same(m.load("y"), Y[::-1])
            assert sorted(os.listdir(m.path)) == ["ours.npy", "theirs.npy", "x.npy", "y.npy"]
            np.save(m.array("z"), Y)
    got = on_disk(store)
    assert got.keys() == {"x", "y", "ours", "theirs"} | ({"z"} if how != "unmount" else set())
    same(got["x"], np.concatenate([X, MORE]))
    same(got["y"], Y[::-1])
    same(got["ours"], Y)
    same(got["theirs"], X)


def test_both_change_one_array(written, mount, tmp_path):
    """No reload can join that. The mount stays read-only, and nothing of either side is lost."""
    store, real = written
    m = mount.start(store, ro=False)
    np.save(m.array("y"), Y[::-1])
    np.save(m.array("ours"), Y)
    real.open(store)
    real.append({"y": Y})
    real.close()
    refuses(m)
    expect_error(errno.EBUSY, ctl, m, "reload")
    assert "'y'" in (m.control() / "last_error").read_text().splitlines()[-1]
    refuses(m)
    same(m.load("y"), Y[::-1])
    mount.kill(m)
    theirs, ours = both_ways_out(mount, store, tmp_path)
    same(theirs["y"], np.concatenate([Y, Y]))
    same(ours["y"], Y[::-1])
    same(ours["ours"], Y)
    for got in theirs, ours:
        same(got["x"], X)


def test_rows_behind_ours(written, mount):
    """It appends to a file while we do: the append that would cut its rows off is refused at once, before it even closes."""
    store, real = written
    with mount(store, ro=False) as m:
        (m.control("x") / "append.raw").write_bytes(X[:5].tobytes())
        ctl(m, "sync")
        real.open(store)
        real.append({"x": MORE})
        size = (store / "data_x.npkd").stat().st_size
        expect_error(errno.EBUSY, (m.control("x") / "append.raw").write_bytes, X[:1].tobytes())
        assert (store / "data_x.npkd").stat().st_size == size
        real.close()
        refuses(m)
        ctl(m, "reload")
        same(m.load("x"), np.concatenate([X, X[:5], MORE]))
        (m.control("x") / "append.raw").write_bytes(X[:1].tobytes())
    same(on_disk(store)["x"], np.concatenate([X, X[:5], MORE, X[:1]]))


def test_rows_are_dropped(written, mount):
    """The entries stay as they are; the bitmap tells."""
    store, real = written
    rows = list(range(0, 1000, 7))
    with mount(store, ro=False) as m:
        np.save(m.array("y"), Y[::-1])
        same(m.load("x"), X)
        real.open(store)
        real.drop_rows("x", rows)
        real.close()
        refuses(m)
        same(m.load("x"), X)
        ctl(m, "reload")
        same(m.load("x"), np.delete(X, rows, axis=0))
        (m.control("x") / "drop").write_text("0\n")
    same(on_disk(store)["x"], np.delete(X, rows, axis=0)[1:])


def test_an_old_handle_drops_rows(written, mount, tmp_path):
    """It knows nothing of the rows that we had dropped, and its bitmap brings them back: that is no state to go on with."""
    store, real = written
    m = mount.start(store, ro=False)
    real.open(store)
    (m.control("x") / "drop").write_text("0:100\n")
    ctl(m, "sync")
    real.drop_rows("x", [500])
    real.close()
    refuses(m)
    expect_error(errno.EBUSY, ctl, m, "reload")
    same(m.load("x"), X[100:])
    mount.kill(m)


def test_an_array_is_compacted(written, mount):
    """By a rename over the data file: a descriptor that we had open would write to nowhere."""
    store, real = written
    rows = list(range(0, 1000, 3))
    with mount(store, ro=False) as m:
        (m.control("x") / "append.raw").write_bytes(MORE.tobytes())
        (m.control("x") / "drop").write_text(",".join(map(str, rows)) + "\n")
        ctl(m, "sync")
        want = np.delete(np.concatenate([X, MORE]), rows, axis=0)
        real.open(store)
        real.update("x")
        expect_error(errno.EBUSY, (m.control("x") / "append.raw").write_bytes, MORE.tobytes())
        real.close()
        refuses(m)
        ctl(m, "reload")
        same(m.load("x"), want)
        assert (m.control("x") / "deleted").read_text() == "0\n"
        (m.control("x") / "append.raw").write_bytes(MORE.tobytes())
    same(on_disk(store)["x"], np.concatenate([want, MORE]))


def test_an_array_is_dropped_and_another_is_unknown(written, mount):
    """Its metadata lacks the array that it dropped, and the one that we made since it opened the store."""
    store, real = written
    with mount(store, ro=False) as m:
        real.open(store)
        np.save(m.array("ours"), Y)
        ctl(m, "sync")
        real.drop_array("x")
        real.close()
        refuses(m)
        ctl(m, "reload")
        assert sorted(os.listdir(m.path)) == ["ours.npy", "y.npy"]
        same(m.load("ours"), Y)
    assert on_disk(store).keys() == {"ours", "y"}


@pytest.mark.parametrize("ours_too", [False, True], ids=["theirs only", "both"])
def test_killed_before_anybody_looked(ours_too, written, mount, tmp_path):
    """A journal on top of metadata that is not its own: refused, and each side can be had."""
    store, real = written
    m = mount.start(store, ro=False)
    np.save(m.array("y"), Y[::-1])
    mount.kill(m)
    real.open(store)
    real.append({"y" if ours_too else "x": Y if ours_too else MORE})
    real.close()
    theirs, ours = both_ways_out(mount, store, tmp_path)
    same(theirs["x"], X if ours_too else np.concatenate([X, MORE]))
    same(theirs["y"], np.concatenate([Y, Y]) if ours_too else Y)
    same(ours["y"], Y[::-1])


def test_killed_after_the_reload(written, mount):
    """The journal goes on from their metadata."""
    store, real = written
    m = mount.start(store, ro=False)
    np.save(m.array("y"), Y[::-1])
    ctl(m, "sync")
    real.open(store)
    real.append({"x": MORE})
    real.close()
    refuses(m)
    ctl(m, "reload")
    (m.control("x") / "append.raw").write_bytes(X[:3].tobytes())
    (m.control("y") / "drop").write_text("0\n")
    mount.kill(m)
    with mount(store, ro=False) as m:
        same(m.load("x"), np.concatenate([X, MORE, X[:3]]))
        same(m.load("y"), Y[::-1][1:])
    got = on_disk(store)
    same(got["x"], np.concatenate([X, MORE, X[:3]]))
    same(got["y"], Y[::-1][1:])


def test_a_transaction_that_is_open(written, mount):
    """What it changed is not what is there any more: its commit fails. One of another array goes on."""
    store, real = written
    with mount(store, ro=False) as m:
        for t, name in ("t1", "x"), ("t2", "y"):
            os.mkdir(m.control() / "batch" / t)
            (m.control() / "batch" / t / ".numpack" / "arrays" / name / "drop").write_text("0:10\n")
        same(m.load("x"), X)
        real.open(store)
        real.append({"x": MORE})
        real.close()
        refuses(m)
        expect_error(errno.EBUSY, (m.control() / "batch" / "t2" / "ctl").write_text, "commit\n")
        ctl(m, "reload")
        expect_error(errno.EBUSY, (m.control() / "batch" / "t1" / "ctl").write_text, "commit\n")
        (m.control() / "batch" / "t2" / "ctl").write_text("commit\n")
        same(m.load("x"), np.concatenate([X, MORE]))
        same(m.load("y"), Y[10:])
        os.rmdir(m.control() / "batch" / "t1")
    got = on_disk(store)
    same(got["x"], np.concatenate([X, MORE]))
    same(got["y"], Y[10:])


def test_metadata_that_is_damaged(written, mount):
    store, _ = written
    with mount(store, ro=False) as m:
        np.save(m.array("y"), Y[::-1])
        good = (store / "metadata.npkm").read_bytes()
        (store / "metadata.npkm").write_bytes(b"NPKBjunk")
        refuses(m)
        expect_error(errno.EUCLEAN, ctl, m, "reload")
        assert (store / "metadata.npkm").read_bytes() == b"NPKBjunk"
        (store / "metadata.npkm").write_bytes(good)
        ctl(m, "reload")
        np.save(m.array("z"), Y)
    got = on_disk(store)
    same(got["y"], Y[::-1])
    same(got["z"], Y)
