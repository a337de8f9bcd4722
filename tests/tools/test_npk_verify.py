"""npk verify --deep: damage that the test makes byte by byte is found and named with file and byte; what is sound is clean."""

import json
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest

from engine import crashed
from harness import BAD, GOLDEN, PATIENCE, SANITIZED, program, untouched
from npkwrite import Spec, write_store

BAD_STORES = [b for b in BAD if b["kind"] == "store"]


def deep(path, *more):
    """The exit status and the findings, (severity, array, text) each."""
    with untouched(path):
        done = subprocess.run([str(program("npk")), "verify", "--deep", "--json", str(path), *more], capture_output=True,
                              timeout=PATIENCE)
        text = subprocess.run([str(program("npk")), "verify", "--deep", str(path), *more], capture_output=True, timeout=PATIENCE)
    assert done.stderr == text.stderr == b"" and done.returncode == text.returncode, (done, text)
    told = json.loads(done.stdout)
    assert told["checked"] and len(text.stdout.splitlines()) == len(told["findings"]) + 1
    return done.returncode, [(f["severity"], f["array"], f["text"]) for f in told["findings"]]


def damage(findings):
    return [text for severity, _, text in findings if severity == "damage"]


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(3)
    path, _ = write_store(tmp_path / "s.npk", {
        "x": Spec(rng.integers(0, 99, (100, 4)).astype("i4"), deleted=[3, 64]),
        "seg": Spec(np.arange(40, dtype="u2"), segment_rows=16),
        "f": Spec(np.array([np.nan, 1, np.inf])),
    })
    return path


def test_a_sound_store_is_clean(store):
    status, findings = deep(store)
    assert status == 0 and damage(findings) == []
    assert {f[1] for f in findings} == {"seg"} and len(findings) == 1    # older ones cannot read segments


@pytest.mark.parametrize("case", BAD_STORES, ids=lambda c: c["path"])
def test_it_finds_what_the_quick_check_finds(case):
    path = GOLDEN / "bad" / case["path"]
    status, findings = deep(path)
    assert status == (1 if case["open_fails"] or case["damaged"] or case["store_read_only"] else 0)
    quick = subprocess.run([str(program("npk")), "verify", "--json", str(path)], capture_output=True, timeout=PATIENCE)
    want = [(f["severity"], f["array"], f["text"]) for f in json.loads(quick.stdout)["findings"]]
    assert set(want) <= set(findings)


def test_unknown_files_are_named_and_do_no_harm(store):
    (store / "README").write_text("mine")
    (store / "sub").mkdir()
    (store / "data_seg_segments" / "seg_000009.npkd").write_bytes(b"xx")
    (store / "data_old.npkd.tmp").write_bytes(b"x")
    (store / "data_stray.npkd").write_bytes(b"x")
    os.mkfifo(store / "pipe")
    status, findings = deep(store)
    assert status == 0
    texts = "\n".join(text for _, _, text in findings)
    for line in ("README: is no file of a store", "sub: is no directory of a store", "pipe: is no directory of a store",
                 "data_seg_segments/seg_000009.npkd: belongs to no array", "data_old.npkd.tmp: left over",
                 "data_stray.npkd: belongs to no array"):
        assert line in texts, texts


def test_only_the_arrays_that_are_named(store):
    os.truncate(store / "data_x.npkd", 17)
    assert deep(store, "seg", "f")[0] == 0
    assert deep(store, "x")[0] == 1
    done = subprocess.run([str(program("npk")), "verify", "-d", str(store), "nope"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 2 and b"nope" in done.stderr


def test_segments_and_bitmaps_keep_to_their_sizes(store):
    with open(store / "data_seg_segments" / "seg_000001.npkd", "ab") as f:
        f.write(b"tail")
    bitmap = bytearray((store / "deleted_x.npkb").read_bytes())
    bitmap[8] = 9
    bitmap[-1] |= 0x80
    (store / "deleted_x.npkb").write_bytes(bitmap)
    status, findings = deep(store)
    texts = "\n".join(text for _, _, text in findings)
    assert status == 0
    assert "data_seg_segments/seg_000001.npkd: byte 32: 4 bytes follow the last row" in texts
    assert "deleted_x.npkb: byte 8: deleted count 9, the bits say 2" in texts and "bits beyond the last row" in texts


# --- the journal ------------------------------------------------------------------------------------------------------


def records(data):
    """(byte, length) of each record of a journal."""
    out, at = [], 56
    while at < len(data):
        n = 13 + struct.unpack_from("<I", data, at)[0] + 4
        out.append((at, n))
        at += n
    return out


def test_a_whole_journal_is_sound(tmp_path):
    path = crashed(tmp_path)
    status, findings = deep(path)
    assert status == 0 and any("numpackfs.journal: " in text and "wait for" in text for _, _, text in findings), findings


def test_every_byte_of_a_record_counts(tmp_path):
    """A flipped byte in the middle is damage where it can be told from a crash; in the last record it is a torn tail."""
    path = crashed(tmp_path)
    whole = (path / "numpackfs.journal").read_bytes()
    places = records(whole)
    assert len(places) > 3
    first, last = places[0], places[-1]
    for at in range(first[0] + 4, first[0] + first[1] - 4, 9):    # not the length: without it nothing behind can be found
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        (path / "numpackfs.journal").write_bytes(flipped)
        status, findings = deep(path)
        assert status == 1 and any(f"numpackfs.journal: byte {first[0]}: " in text for text in damage(findings)), (at, findings)
    for cut in (1, 4, last[1] // 2, last[1] - 1):
        (path / "numpackfs.journal").write_bytes(whole[:-cut])
        status, findings = deep(path)
        warned = [text for severity, _, text in findings if severity == "warning"]
        assert status == 0 and any(f"numpackfs.journal: byte {last[0]}: {last[1] - cut} bytes" in text for text in warned), findings
    for at in range(0, 56, 9):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        (path / "numpackfs.journal").write_bytes(flipped)
        assert deep(path)[0] == 1


def test_a_foreign_writer_under_our_journal_is_damage(tmp_path):
    path = crashed(tmp_path)
    other, _ = write_store(tmp_path / "other.npk", {"y": np.arange(5)})
    shutil.copy(other / "metadata.npkm", path / "metadata.npkm")
    shutil.copy(other / "data_y.npkd", path / "data_y.npkd")
    status, findings = deep(path)
    assert status == 1 and any("--replay" in text for text in damage(findings)), findings


def test_it_needs_no_memory_for_large_files(tmp_path):
    if SANITIZED:
        pytest.skip("a sanitizer's own memory is above any limit")
    path, _ = write_store(tmp_path / "big.npk", {"x": np.zeros((1, 16), "f4")})
    meta, rows = (path / "metadata.npkm").read_bytes(), 1 << 22
    (path / "metadata.npkm").write_bytes(meta.replace(struct.pack("<QQ", 1, 16), struct.pack("<QQ", rows, 16)))
    os.truncate(path / "data_x.npkd", rows * 64)    # a hole
    done = subprocess.run(["prlimit", f"--data={32 << 20}", str(program("npk")), "verify", "-d", str(path)], capture_output=True,
                          timeout=PATIENCE)
    assert done.returncode == 0 and done.stderr == b"", done
