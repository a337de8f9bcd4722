"""Names: every name that NumPack can store becomes one path component, and comes back from it."""

import errno
import os

import numpy as np
import pytest

from harness import ARRAYS, component, escape, expect_error, same
from npkwrite import write_store

NAMES = [a["array"] for a in ARRAYS if a["store"] in ("names.npk", "control_names.npk", "slash.npk")]


def test_the_rule_itself():
    """The reference that the other tests use, against examples worked by hand."""
    for name, want in {"x": b"x", "": b"%", "a b": b"a b", "a/b": b"a%2Fb", "100%": b"100%25", ".x": b"%2Ex", "..": b"%2E.",
                       "x.npy": b"x.npy", "a\nb\x7f\x01": b"a%0Ab%7F%01", "é": "é".encode(), b"\xff": b"%FF",
                       "a.b": b"a.b", "\u202eabc": "\u202eabc".encode()}.items():
        assert escape(name) == want, name


@pytest.mark.parametrize("store", ["names.npk", "control_names.npk", "slash.npk"])
def test_every_name_shows_in_all_lists(store, golden_mount):
    m = golden_mount(store)
    names = [a["array"] for a in ARRAYS if a["store"] == store]
    want = sorted(os.fsencode(component(n)) for n in names)
    assert sorted(n[:-4] for n in os.listdir(os.fsencode(m.path))) == want
    assert sorted(os.listdir(os.fsencode(m.control() / "arrays"))) == want
    assert sorted((m.control() / "members").read_bytes().splitlines()) == want, "members is one name a line: it is escaped"
    for name in names:
        info = (m.control(name) / "shape").read_text()
        assert info == " ".join(str(n) for n in m.load(name).shape) + "\n", name


@pytest.mark.parametrize("wrong", ["a%20b", "%61", "x%", "%2f", "%2", "%%", "x.npy", "", "a%", "%2E%2E", "%3A"])
def test_only_the_canonical_spelling_is_a_name(wrong, mount, tmp_path):
    """One array, one path: another spelling of the same name would have page caches of its own."""
    names = ["a b", "a", "x", "a/b", "..", ":"]
    store, _ = write_store(tmp_path / "s.npk", {n.replace("/", "_"): np.arange(3) for n in names})
    with mount(store) as m:
        expect_error(errno.ENOENT, os.stat, m.path / (wrong + ".npy"))
        expect_error(errno.ENOENT, os.stat, m.control() / "arrays" / (wrong or "nothing"))


def test_a_name_without_npy_is_nothing(golden_mount):
    m = golden_mount("dtypes.npk")
    for wrong in ("int32_17", "int32_17.np", "int32_17.npy.npy", "int32_17.NPY", ".int32_17.npy"):
        expect_error(errno.ENOENT, os.stat, m.path / wrong)
    expect_error(errno.ENOTDIR, os.stat, m.array("int32_17") / "x")


def test_names_longer_than_a_component_are_counted_not_shown(mount, tmp_path):
    """80 control characters are 240 bytes after escaping; 84 are 252 and with .npy too long."""
    fits, too_long = "\x01" * 80, "\x02" * 84
    store, _ = write_store(tmp_path / "s.npk", {fits: np.arange(3), too_long: np.arange(4), "x": np.arange(5)})
    with mount(store) as m:
        assert sorted(os.listdir(m.path)) == sorted([component(fits) + ".npy", "x.npy"])
        same(m.load(fits), np.arange(3))
        same(m.load("x"), np.arange(5))
        stats = (m.control() / "stats").read_text()
        import json
        assert 1 in [v for k, v in json.loads(stats).items() if "hidden" in k or "long" in k or "not_shown" in k], stats


def test_two_names_that_differ_in_case_or_form(golden_mount):
    m = golden_mount("names.npk")
    assert m.load("A").dtype != m.load("a").dtype
    assert m.load("cafe\u0301").dtype != m.load("caf\u00e9").dtype
