"""view/<selection>.npy against numpy: a selection never removes an axis, and several parts combine as in np.ix_()."""

import errno
import json
import mmap
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from harness import expect_error, same, saved, scaled
from npkwrite import Spec, write_store


def make_store(base):
    rng = np.random.default_rng(7)

    def some(rows, share):
        return sorted(rng.choice(rows, int(rows * share), replace=False).tolist())

    arrays = {
        "one": Spec(rng.integers(0, 1000, 100)),
        "one_holes": Spec(rng.integers(0, 255, 150).astype("u1"), deleted=some(150, 0.3)),
        "two": Spec(rng.random((60, 9)).astype("f4")),
        "two_holes": Spec(rng.random((130, 7)), deleted=some(130, 0.5)),
        "three": Spec(rng.integers(-100, 100, (20, 5, 6)).astype("i2"), deleted=[0, 19]),
        "parts": Spec(rng.integers(0, 1 << 30, (97, 3)).astype("i4"), deleted=some(97, 0.2), segment_rows=10),
        "wide": Spec(rng.random((5, 3000)).astype("c8")),
        "none": Spec(np.zeros((0, 4), "f2")),
        "all_gone": Spec(np.ones((70, 2), "u2"), deleted=list(range(70))),
    }
    for name in list(arrays):
        n = len(arrays[name].logical())
        arrays["bool_" + name] = Spec(rng.random(n) < 0.5)
    arrays["ints_two"] = Spec(rng.integers(0, 2, 60).astype("i8"))
    arrays["mask_holes"] = Spec(np.r_[rng.random(60) < 0.5, np.ones(10, bool)], deleted=list(range(60, 70)))
    arrays["columns_two"] = Spec(np.array([1, 0, 1, 1, 0, 0, 1, 0, 0], bool))
    return write_store(base / "views.npk", arrays)


@pytest.fixture(scope="module")
def views(tmp_path_factory, watchdog):
    from harness import Mounter

    base = tmp_path_factory.mktemp("views")
    store, specs = make_store(base)
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    m = mounter.start(store)
    yield m, {name: spec.logical() for name, spec in specs.items()}
    mounter.stop(m)


def indexes(part, n, arrays):
    """The reference: one part of a selection as a list of row numbers, by Python's own rules."""
    if part in ("all", ""):
        return list(range(n))
    if part.startswith("mask="):
        return np.flatnonzero(arrays[part[5:]]).tolist()
    out = []
    for item in part.replace("+", ",").split(","):
        if ":" in item:
            out += range(n)[slice(*(int(x) if x else None for x in item.split(":")))]
        else:
            out.append(range(n)[int(item)])
    return out


def reference(arrays, name, selection):
    x = arrays[name]
    parts = selection.replace("@", ";").split(";")
    rows = [np.array(indexes(p, n, arrays), dtype=int) for p, n in zip(parts, x.shape)]
    rows += [np.arange(n) for n in x.shape[len(parts):]]
    return np.ascontiguousarray(x[np.ix_(*rows)])


def check(views, name, selection, sep="@"):
    m, arrays = views
    path = m.view(name, selection)
    want = reference(arrays, name, selection)
    size = path.stat().st_size
    got = np.load(path)
    same(got, want)
    assert size == len(saved(want))
    return path, want


@pytest.mark.parametrize("name, selection", [
    ("one", "0"), ("one", "-1"), ("one", "99"), ("one", "-100"), ("one", "0:100"), ("one", "all"), ("one", "::-1"),
    ("one", "5:5"), ("one", "90:1000"), ("one", "-5:"), ("one", ":-95"), ("one", "99::-7"), ("one", "1,1,1"),
    ("one", "3+2+1"), ("one", "0:10,50,-1,20:0:-5"), ("one", "mask=bool_one"), ("one", "1000:2000"),
    ("one_holes", "0:50:3"), ("one_holes", "mask=bool_one_holes"), ("one_holes", "::-1"),
    ("two", "0:10@1"), ("two", "0:10;1"), ("two", "all@0,2,4"), ("two", "mask=ints_two@::2"),
    ("two", "mask=mask_holes"), ("two", "all@mask=columns_two"), ("two", "5@5"), ("two", "0:10@3:3"),
    ("two_holes", "::7@::-1"), ("two_holes", "0,64,-1@0"), ("three", "1:3@2@0:6:5"),
    ("parts", "8:12"), ("parts", "::10@1"), ("parts", "mask=bool_parts@2,0"), ("wide", "all@2999,0"), ("wide", "0@::1000"),
    ("none", "0:10"), ("none", "all@1"), ("all_gone", ":"), ("all_gone", "0:0@1"),
])
def test_selections(name, selection, views):
    check(views, name, selection)


def test_0_d_arrays_have_no_axis_to_select(golden_mount):
    m = golden_mount("scalar.npk")
    for path in m.path.iterdir():
        if np.load(path).ndim == 0:
            expect_error(errno.ENOENT, os.stat, m.view(path.name[:-4], "0@0"))


def items(n):
    number = st.integers(-n, n - 1).map(str) if n else st.nothing()
    bound = st.one_of(st.just(""), st.integers(-2 * n - 3, 2 * n + 3).map(str))
    step = st.one_of(st.just(""), st.integers(-n - 2, n + 2).filter(bool).map(str))
    slices = st.one_of(st.tuples(bound, bound).map(":".join), st.tuples(bound, bound, step).map(":".join))
    return st.one_of(number, slices)


@st.composite
def selections(draw, arrays):
    name = draw(st.sampled_from([n for n in arrays if arrays[n].ndim and not n.startswith(("bool_", "mask_", "columns_"))]))
    x = arrays[name]
    parts = []
    for axis in range(draw(st.integers(1, x.ndim))):
        masks = [n for n in arrays if arrays[n].ndim == 1 and arrays[n].dtype.kind in "biu" and len(arrays[n]) == x.shape[axis]]
        one = st.lists(items(x.shape[axis]), min_size=1, max_size=6).flatmap(
            lambda xs: st.sampled_from(",+").map(lambda sep: sep.join(xs)))
        choices = [one, st.just("all")]
        if masks and axis == 0:
            choices.append(st.sampled_from(masks).map("mask={}".format))
        parts.append(draw(st.one_of(choices)))
    return name, draw(st.sampled_from("@;")).join(parts)


def test_any_selection_is_numpys(views):
    """Random rows, columns, steps, negatives, lists and masks: the same shape and bytes as np.ix_ gives."""
    arrays = views[1]

    @settings(max_examples=scaled(400), deadline=None, database=None, print_blob=True,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(selections(arrays))
    def run(case):
        name, selection = case
        if len(selection) + 4 <= 1000:
            check(views, name, selection)

    run()


@pytest.mark.parametrize("wrong", ["x", "1:2:3:4", "1:2:0", ",", "1,,2", "0x10", "1.0", "--1", "mask=", "mask=nothing",
                                   "all,1", "1@2@3@4", "mask=three", "mask=two", "mask=bool_one", "1:a", "@@@@", "mask",
                                   "sel=1", "ALL", "1;2;3;4", "1:2x"])
def test_what_does_not_parse_is_not_there(wrong, views):
    m, _ = views
    e = expect_error(errno.ENOENT, os.stat, m.view("three", wrong))
    last = m.last_errors()[-1]
    assert last["errno"] == "ENOENT" and last["message"] and e.strerror, last
    expect_error(errno.ENOENT, os.open, m.view("three", wrong), os.O_RDONLY)


@pytest.mark.parametrize("name, selection", [("one", "100"), ("one", "-101"), ("two", "0@9"), ("two", "59,60"), ("two", "0@-10"),
                                             ("none", "0"), ("all_gone", "0"), ("one_holes", "149"), ("three", "18")])
def test_out_of_range_is_erange_with_the_reason(name, selection, views):
    m, arrays = views
    expect_error(errno.ERANGE, os.stat, m.view(name, selection))
    last = m.last_errors()[-1]
    number = selection.split("@")[-1].split(",")[-1]
    assert last["errno"] == "ERANGE" and number in last["message"], last


def test_numbers_too_large_for_any_integer(views):
    """As a row: an error. As a bound of a slice: an error or Python's clamping, but no wrapping around."""
    m, arrays = views
    huge = "9" * 25
    for selection in (huge, "-" + huge, "18446744073709551616", "9223372036854775808", "18446744073709551615"):
        with pytest.raises(OSError) as e:
            os.stat(m.view("one", selection))
        assert e.value.errno in (errno.ENOENT, errno.ERANGE), selection
    for selection in ("0:" + huge, "0:18446744073709551617", "::" + huge, "-" + huge + ":5", "5:9223372036854775808",
                      "::9223372036854775807", "::-9223372036854775808", "-9223372036854775808:"):
        path = m.view("one", selection)
        if os.path.exists(path):
            same(np.load(path), reference(arrays, "one", selection))
        else:
            expect_error(errno.ENOENT, os.stat, path)


def test_a_name_without_npy_is_no_view(views):
    m, _ = views
    for name in ("0:10", "0:10.txt", "0:10.npy.npy"):
        expect_error(errno.ENOENT, os.stat, m.control("one") / "view" / name)


def test_views_map(views):
    for name, selection in [("two_holes", "::2@::3"), ("wide", "all"), ("one", "10:90"), ("parts", "::-1")]:
        path, want = check(views, name, selection)
        same(np.load(path, mmap_mode="r"), want)
        got = np.load(path, mmap_mode="c")
        got[...] = 0
        same(np.load(path), want)


def test_views_read_from_any_offset(views):
    path, want = check(views, "wide", "::-1@::3")
    raw = saved(want)
    fd = os.open(path, os.O_RDONLY)
    for off in list(range(0, 300, 13)) + [len(raw) - 1, len(raw), len(raw) + 5, 4095, 4096, 4097]:
        for n in (1, 7, 4096, 100_000):
            assert os.pread(fd, n, off) == raw[off:off + n], (off, n)
    os.close(fd)


def test_views_read_with_o_direct(views):
    path, want = check(views, "two_holes", "::3@1:5")
    raw = saved(want)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buf = mmap.mmap(-1, 1 << 16)
    assert os.preadv(fd, [buf], 0) == len(raw) and buf[:len(raw)] == raw
    os.close(fd)


def test_long_names(views):
    """Names up to 1000 bytes."""
    m, arrays = views
    selection = ",".join(str(i % 100) for i in range(344))[:996].rstrip(",-")
    assert 990 <= len(selection) <= 996
    check(views, "one", selection)
    expect_error(errno.ENAMETOOLONG, os.stat, m.view("one", "1," * 600 + "1"))


def test_a_view_of_a_large_array_costs_no_memory(mount, tmp_path):
    """A view of many rows that do not lie together is gathered as it is read, not kept."""
    x = np.arange(2_000_000, dtype="i8").reshape(-1, 2)
    store, specs = write_store(tmp_path / "s.npk", {"x": Spec(x, deleted=list(range(0, 1000)))})
    with mount(store) as m:
        got = np.load(m.view("x", "::-3@1"), mmap_mode="r")
        want = specs["x"].logical()[::-3, 1:]
        assert got.shape == want.shape and np.array_equal(got, want)
        del got     # a map keeps the mount busy


def test_info_of_the_parent_is_not_changed_by_views(views):
    m, arrays = views
    check(views, "two", "0:10@1")
    assert json.loads((m.control("two") / "info").read_text())["shape"] == [60, 9]
