"""What we write, NumPack reads; what NumPack writes, we read. After a clean end or `sync` the real 0.5.0 and a reader with
0.7's rules find exactly our logical arrays; at any other moment a 0.7 reader finds, of every array, a state that it had."""

import os
import shutil

import numpy as np
import pytest

import npkread
from engine import Library, Mounted
from harness import GOLDEN, RealNumPack, same, scaled
from npkwrite import DTYPES, Spec, write_store

NAMES = ["x", "two words", "data.npkd", "\u00fc\u4e2d", "UPPER", "a" * 100]


def some(rng, dtype, shape):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()


def some_array(rng, rows=None):
    tail = tuple(int(n) for n in rng.integers(1, 6, rng.integers(0, 3)))
    return some(rng, rng.choice(DTYPES), (int(rng.integers(1, 200)) if rows is None else rows, *tail))


class History:
    """Random changes through the library or a mount, and what every array must be by now and was before."""

    def __init__(self, rng, path, door):
        self.rng, self.path, self.door = rng, path, door
        self.now, self.was, self.told, self.replaced = {}, {}, [], False

    def note(self, *words):
        self.told.append(words)

    def put(self, name, array):
        self.now[name] = array
        self.was.setdefault(name, []).append(array)

    def step(self):
        rng, now = self.rng, self.now
        name = str(rng.choice(list(now))) if now else NAMES[0]
        what = str(rng.choice(["save", "append", "drop", "replace", "compact", "clone", "rename", "remove"],
                              p=[.2, .2, .2, .15, .1, .05, .05, .05]))
        self.note(what, name)
        if what == "save" or not now:
            name = str(rng.choice(NAMES))
            x = some_array(rng)
            self.door.save(name, x)
            self.put(name, x)
        elif what == "append":
            x = some(rng, now[name].dtype, (int(rng.integers(1, 100)), *now[name].shape[1:]))
            self.door.append(name, x)
            self.put(name, np.concatenate([now[name], x]))
        elif what == "drop" and len(now[name]) > 1:
            rows = rng.choice(len(now[name]), int(rng.integers(1, len(now[name]))), replace=False)
            self.door.drop(name, rows)
            self.put(name, np.delete(now[name], rows, axis=0))
        elif what == "replace" and len(now[name]):
            rows = rng.choice(len(now[name]), int(rng.integers(1, min(20, len(now[name])) + 1)), replace=False)
            x = now[name].copy()
            x[rows] = some(rng, x.dtype, (len(rows), *x.shape[1:]))
            self.door.replace(name, rows, x[rows])
            self.replaced = True
            self.put(name, x)
        elif what == "compact":
            self.door.compact(name)
        elif what in ("clone", "rename"):
            to = str(rng.choice(NAMES))
            if to not in now:
                getattr(self.door, what)(name, to)
                self.put(to, now[name])
                if what == "rename":
                    del now[name]
        elif what == "remove" and len(now) > 1:
            self.door.remove(name)
            del now[name]

    def check(self, read, names):
        assert sorted(names) == sorted(self.now), f"{self.told}"
        for name, want in self.now.items():
            try:
                same(read(name), want)
            except Exception as e:
                raise AssertionError(f"{name!r}: {e}; {self.told}") from e

    def check_any_moment(self):
        """In place changes show through row by row, also in a layout and under a name of before: then each row must be one
        that was there."""
        for name, got in npkread.read(self.path).items():
            fits = [w for w in self.was[name] if w.dtype == got.dtype and w.shape == got.shape]
            assert fits, f"{name!r}: {got.dtype}{got.shape} was never there; {self.told}"
            if not any(w.tobytes() == got.tobytes() for w in fits):
                assert self.replaced, f"{name!r} is none of its {len(fits)} states; {self.told}"
                rows = {r.tobytes() for was in self.was.values() for w in was if w.dtype == got.dtype for r in w}
                wrong = [i for i, r in enumerate(got) if r.tobytes() not in rows]
                assert not wrong, f"{name!r}: the rows {wrong} were never there; {self.told}"


@pytest.fixture(params=["library", "mount"])
def opened(request, mount, tmp_path):
    """opened(store): the store open for writing through the library or a mount."""
    live = []

    def get(store):
        live.append(Library(store, tmp_path / "engine") if request.param == "library" else Mounted(mount, store))
        return live[-1]

    yield get
    for d in live:
        if d.alive:     # the test failed
            d.kill()


@pytest.fixture
def real(tmp_path):
    """real(store): the real library with the store open, in a new process each time: 0.5.0 keeps the maps of files that it
    has once loaded, whatever happens to them."""
    live = []

    def get(store):
        live.append(RealNumPack(tmp_path / f"real{len(live)}"))
        live[-1].open(store)
        return live[-1]

    yield get
    for r in live:
        r.end()


@pytest.mark.parametrize("seed", range(scaled(2)))
def test_the_real_numpack_and_we_in_turn(seed, opened, tmp_path, real):
    rng = np.random.default_rng(seed)
    store = tmp_path / "s.npk"
    h = History(rng, store, None)
    for turn in range(3):
        h.door = opened(store)
        h.check(h.door.load, h.door.names())
        for i in range(12):
            h.step()
            h.check_any_moment()
            if i == 6:
                h.note("sync")
                h.door.sync()
                assert npkread.complaints(store) == [], h.told
                h.check(lambda name: npkread.read_array(store, name, npkread.metadata(store)[name]), npkread.metadata(store))
                shutil.copytree(store, tmp_path / f"copy{turn}")    # it rewrites what it has only read
                r = real(tmp_path / f"copy{turn}")
                h.check(r.load, r.members())
                r.close()
        h.check(h.door.load, h.door.names())
        h.door.close()
        h.note("close")
        assert npkread.complaints(store) == [], h.told
        assert not [n for n in os.listdir(store) if n.startswith("numpackfs.journal")], os.listdir(store)
        h.check(lambda name: npkread.read_array(store, name, npkread.metadata(store)[name]), npkread.metadata(store))
        r = real(store)
        h.check(r.load, r.members())
        real_writes(rng, r, h)
        r.close()
        h.note("the real one closed")
        h.was = {name: [x] for name, x in h.now.items()}
    h.door = opened(store)
    h.check(h.door.load, h.door.names())
    h.door.close()


def real_writes(rng, real, h):
    """Changes that the library does right (format.md section 10 lists the others): nothing on an array with a bitmap but
    compaction."""
    for name in list(h.now):
        what = rng.choice(["append", "drop", "nothing", "array"])
        real.update(name)
        x = h.now[name]
        h.note("real", what, name)
        if what == "append":
            more = some(rng, x.dtype, (int(rng.integers(1, 50)), *x.shape[1:]))
            real.append({name: more})
            h.now[name] = np.concatenate([x, more])
        elif what == "drop" and len(x) > 1:
            rows = np.sort(rng.choice(len(x), int(rng.integers(1, len(x))), replace=False))
            real.drop_rows(name, rows)
            h.now[name] = np.delete(x, rows, axis=0)
        elif what == "array" and len(h.now) > 1:
            real.drop_array(name)
            del h.now[name]
    new = some_array(rng)
    name = str(rng.choice([n for n in NAMES if n not in h.now] or ["new"]))
    real.save({name: new})
    h.now[name] = new


def segmented_store(path):
    """Segments of 16 and 10 rows, with and without deletions, beside an array in one file; and NumPack 0.7's own."""
    x = np.arange(70 * 3, dtype="f4").reshape(70, 3)
    write_store(path, {"seg": Spec(x, segment_rows=16), "holes": Spec(x, deleted=[0, 15, 16, 40, 69], segment_rows=10),
                       "whole": Spec(x)})
    return {"seg": x, "holes": np.delete(x, [0, 15, 16, 40, 69], axis=0), "whole": x}


def form(store, name):
    return npkread.metadata(store)[name]["file"].endswith(".npkseg")


def test_segmented_arrays_stay_segmented(opened, tmp_path):
    store = tmp_path / "s.npk"
    want = segmented_store(store)
    door = opened(store)
    more = np.arange(60, dtype="f4").reshape(20, 3) - 1000
    for name in ("seg", "holes"):
        door.append(name, more)
        want[name] = np.concatenate([want[name], more])
        rows = [0, 14, 15, 16, 17, len(want[name]) - 1]
        want[name][rows] = -np.arange(18, dtype="f4").reshape(6, 3)
        door.replace(name, rows, want[name][rows])
        door.drop(name, [1, 15, 33])
        want[name] = np.delete(want[name], [1, 15, 33], axis=0)
        door.append(name, more)
        want[name] = np.concatenate([want[name], more])
        same(door.load(name), want[name])
    door.sync()
    for name in want:
        same(npkread.read_array(store, name, npkread.metadata(store)[name]), want[name])
    door.close()
    assert npkread.complaints(store) == []
    assert form(store, "seg") and form(store, "holes") and not form(store, "whole")
    for name in want:
        same(npkread.read_array(store, name, npkread.metadata(store)[name]), want[name])
    door = opened(store)
    for name in ("seg", "holes"):
        door.compact(name)
        same(door.load(name), want[name])
    door.close()
    assert npkread.complaints(store) == []
    for name in want:
        same(npkread.read_array(store, name, npkread.metadata(store)[name]), want[name])


def test_golden_segments_are_changed_in_place_and_stay(opened, tmp_path):
    store = tmp_path / "segmented.npk"
    shutil.copytree(GOLDEN / "segmented.npk", store)
    want = npkread.read(store)
    before = {name: form(store, name) for name in want}
    door = opened(store)
    for name in want:
        if want[name].ndim and len(want[name]):
            more = want[name][:1]
            door.append(name, more)
            want[name] = np.concatenate([want[name], more])
            door.drop(name, [0])
            want[name] = want[name][1:]
            same(door.load(name), want[name])
    door.close()
    assert npkread.complaints(store) == []
    assert {name: form(store, name) for name in want} == before
    got = npkread.read(store)
    assert sorted(got) == sorted(want)
    for name in want:
        same(got[name], want[name])


def test_appends_fill_segments_as_numpack_would(opened, tmp_path, monkeypatch):
    """A target of 240 bytes is 20 rows of 12: the last segment of 6 rows takes 14, then come new ones. One file stays one."""
    monkeypatch.setenv("NPK_SEGMENT_TARGET_BYTES", "240")
    store = tmp_path / "s.npk"
    want = segmented_store(store)
    door = opened(store)
    for name in want:
        more = np.arange(45 * 3, dtype="f4").reshape(45, 3)
        door.append(name, more)
        want[name] = np.concatenate([want[name], more])
    door.close()
    rows = [s["rows"] for s in npkread.manifest(store, npkread.metadata(store)["seg"]["file"])]
    assert rows == [16, 16, 16, 16, 20, 20, 11]
    assert not form(store, "whole") and npkread.complaints(store) == []
    for name in want:
        same(npkread.read(store)[name], want[name])
