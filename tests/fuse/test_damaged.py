"""The damaged stores of golden/bad: the stated error, with file, byte and value; everything else goes on working; and not a
byte on disk changes."""

import errno
import json
import os
import re

import numpy as np
import pytest

from harness import BAD, GOLDEN, expect_error, mounted, npy, same, untouched

STORES = [b for b in BAD if b["kind"] == "store"]
REFUSED = [b for b in STORES if b["open_fails"]]
ACCEPTED = [b for b in STORES if not b["open_fails"]]

# Valid in form, but of a kind that this version does not know.
NEWER = {"dtype_200", "compression_set", "block_flag"}

# What the sentence must name, beside the array: the file that is wrong.
BLAMED = {
    "meta_huge_shape": "metadata.npkm", "name_dotdot": "metadata.npkm", "datafile_dotdot": "metadata.npkm",
    "datafile_absolute": "metadata.npkm", "name_nul": "metadata.npkm", "dtype_200": "metadata.npkm",
    "compression_set": "metadata.npkm", "block_flag": "metadata.npkm",
    "data_short": "data_victim.npkd", "data_missing": "data_victim.npkd",
    "bitmap_short": "deleted_victim.npkb", "bitmap_empty": "deleted_victim.npkb", "bitmap_17_bytes": "deleted_victim.npkb",
    "bitmap_wrong_words": "deleted_victim.npkb", "bitmap_stale": "deleted_victim.npkb",
    "bitmap_huge_rows": "deleted_victim.npkb",
    "seg_bad_json": "data_victim.npkseg", "seg_version2": "data_victim.npkseg", "seg_rows_short": "data_victim.npkseg",
    "seg_bytes_wrong": "data_victim.npkseg", "seg_traversal": "data_victim.npkseg",
    "seg_manifest_missing": "data_victim.npkseg",
    "seg_missing": "seg_0", "seg_short": "seg_0",
}


def by_path(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c["path"])


@by_path(REFUSED)
def test_a_damaged_store_is_refused(case, mount, golden_copy):
    store = golden_copy("bad/" + case["path"])
    with untouched(store):
        status, message = mount.refused(store)
    assert status == 2
    assert len(message.splitlines()) == 1, message
    assert "metadata.npkm" in message, message
    if case["path"] == "meta_wrong_magic":
        assert re.search(r"byte 0\b", message) and "NPKX" in message, message
    if case["path"] in ("meta_version0", "meta_version2"):
        assert re.search(r"byte 4\b", message) and re.search(rf"\b{case['path'][-1]}\b", message), message


@by_path(ACCEPTED)
def test_a_damaged_array_does_not_harm_the_others(case, mount, golden_copy):
    store = golden_copy("bad/" + case["path"])
    with untouched(store), mount(store) as m:
        assert sorted(os.listdir(m.path)) == sorted(npy(name) for name in case["usable"] + case["damaged"])
        for name in case["usable"]:
            want = np.load(GOLDEN / "bad" / case["values"][name])
            same(m.load(name), want)
            same(m.load(name, mmap_mode="r"), want)
            info = json.loads((m.control(name) / "info").read_text())
            assert info["rows"] == len(want), info
        for name in case["damaged"]:
            path = m.array(name)
            assert path.stat().st_size == 0
            code = errno.EOPNOTSUPP if case["path"] in NEWER else errno.EUCLEAN
            expect_error(code, os.open, path, os.O_RDONLY)
            text = (m.control(name) / "info").read_text()
            json.loads(text)
            assert BLAMED[case["path"]] in text, text
            last = [e for e in m.last_errors() if getattr(errno, e["errno"]) == code]
            assert last and BLAMED[case["path"]] in last[-1]["message"], m.last_errors()
            assert last[-1]["pid"] and last[-1]["uid"] == os.getuid() and last[-1]["path"].endswith(npy(name)), last[-1]
        # The walk over everything is not stopped by it, and the daemon is still there.
        for name in case["usable"]:
            same(m.load(name), np.load(GOLDEN / "bad" / case["values"][name]))


@by_path([c for c in ACCEPTED if c["store_read_only"]])
def test_the_reason_of_a_read_only_store_can_be_read(case, mount, golden_copy):
    store = golden_copy("bad/" + case["path"])
    with mount(store) as m:
        assert "metadata.npkm" in (m.control() / "log").read_text() + (m.control() / "stats").read_text()
        # The daemon says it where the one who mounts looks, too.
        assert "metadata.npkm" in m.log_text()


def test_a_damaged_mask_or_view_of_a_damaged_array(mount, golden_copy):
    store = golden_copy("bad/data_short")
    with mount(store) as m:
        expect_error(errno.EUCLEAN, os.open, m.view("victim", "0:10"), os.O_RDONLY)
        expect_error(errno.EUCLEAN, os.open, m.view("good", "mask=victim"), os.O_RDONLY)
        same(np.load(m.view("good", "1:3")), np.load(GOLDEN / "bad" / "expected" / "good.npy")[1:3])


def test_metadata_that_goes_bad_does_not_harm_a_mount_that_is_up(mount, golden_copy):
    """Without watch= nothing is read anew: the mount serves what it opened."""
    store = golden_copy("dtypes.npk")
    with mount(store) as m:
        (store / "metadata.npkm").write_bytes(b"rubbish")
        assert len(os.listdir(m.path)) == 42
        assert m.load("int32_17").shape == (17,)
    status, _ = mount.refused(store)
    assert status == 2


def test_no_store_at_all(mount, tmp_path):
    status, message = mount.refused(tmp_path / "nowhere")
    assert status == 2 and len(message.splitlines()) == 1 and "nowhere" in message
    assert not (tmp_path / "nowhere").exists()
    assert not mounted(tmp_path)
