"""npk repair: damage that the test makes byte by byte. A dry run changes nothing; --apply mends what can be known and nothing
else, keeps what it replaces, and a second one finds nothing to do. What is then in the store is compared with numpy."""

import io
import json
import os
import pathlib
import shutil
import struct
import subprocess

import numpy as np
import pytest

import npkread
from engine import Library, crashed
from harness import BAD, GOLDEN, PATIENCE, RealNumPack, program, same, untouched
from npkwrite import Spec, bitmap, write_store

SOUND, DAMAGED, REFUSED, BUSY = 0, 1, 2, 3
BAD_STORES = [b for b in BAD if b["kind"] == "store"]
VICTIM = np.load(GOLDEN / "bad" / "expected" / "victim.npy")
KEPT = ".numpackfs.repair-"
LOCK = ".numpackfs.lock"


def npk(*words):
    return subprocess.run([str(program("npk")), *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)


def contents(path):
    """{path: bytes} of everything but the lock file, which says nothing once it is free."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(pathlib.Path(path).rglob("*")) if p.is_file() and p.name != LOCK}


def of_store(path):
    """Likewise, without what repairs have kept."""
    return {k: v for k, v in contents(path).items() if not k.startswith(KEPT)}


def repair(path, *words):
    """The exit status, the steps that a dry run told; applied twice. The same steps are told by both, in words and as JSON."""
    with untouched(path):
        dry, text = npk("repair", "--json", path, *words), npk("repair", path, *words)
    told = json.loads(dry.stdout)
    assert dry.returncode == text.returncode, (dry, text)
    if dry.returncode == REFUSED:
        assert told["why"] and told["why"] in text.stderr.decode()
        return REFUSED, told["why"]
    lines = text.stdout.decode().splitlines()
    assert text.stderr == b"" and len(lines) == len(told["steps"]) + 1
    for line, step in zip(lines, told["steps"]):
        kind, rest = line.split(": ", 1)
        assert kind == step["kind"] and rest.startswith(f"{step['file']}: byte {step['byte']}: ") and rest.endswith(
            step["what"] if kind == "left" else f": {step['old']} -> {step['new']}"), (line, step)
    before = contents(path)
    done = npk("repair", "--apply", "--json", path, *words)
    told_then = json.loads(done.stdout)
    changes = [s for s in told["steps"] if s["kind"] == "change"]
    assert told_then["steps"] == told["steps"] and done.stderr == b""
    assert dry.returncode == (DAMAGED if told["steps"] else SOUND)
    assert done.returncode == (DAMAGED if told["left"] else SOUND), done
    after = contents(path)
    if not changes:
        assert after == before
    else:    # every byte that was there is still there: where it was, or among the kept things
        whole = list(after.values())
        for name, data in before.items():
            tails = [k for k in after if k.startswith(told_then["kept"] or "-") and f"/{name}.from-" in k]
            assert data in whole or any(after[name] + after[k] == data for k in tails), name
    again = npk("repair", "--apply", "--json", path, *([] if changes else words))
    assert again.returncode == done.returncode and contents(path) == after, again
    assert json.loads(again.stdout)["changes"] == 0
    return done.returncode, told["steps"]


def verified(path):
    return npk("verify", "--deep", "-q", path).returncode


def copy_bad(name, tmp_path):
    return pathlib.Path(shutil.copytree(GOLDEN / "bad" / name, tmp_path / name))


def bits(path, at, rows):
    """The rows that the first words of a bitmap file do not hide; a row without a bit is not hidden."""
    data = np.frombuffer((path / "deleted_victim.npkb").read_bytes()[at:], "u1")
    live = np.unpackbits(data, bitorder="little")[:rows].astype(bool)
    return np.concatenate([live, np.ones(100 - len(live), bool)])


# --- the damaged stores of the format's description --------------------------------------------------------------------

LEFT = {"data_missing", "dtype_200", "meta_empty", "meta_entry_cut", "meta_header_cut", "meta_missing", "meta_version2", "name_dotdot",
        "name_not_utf8", "name_nul", "seg_missing", "seg_short"}
# What the array `victim` is when it was mended; else what it was, or the whole array.
MENDED = {
    "data_short": lambda path: VICTIM[:99],
    "seg_rows_short": lambda path: VICTIM[:99],
    "bitmap_short": lambda path: VICTIM[bits(path, 16, 50)],
    "bitmap_wrong_words": lambda path: VICTIM[bits(path, 16, 100)],
}


@pytest.mark.parametrize("case", BAD_STORES, ids=lambda c: c["path"])
def test_golden_damage(case, tmp_path):
    path = copy_bad(case["path"], tmp_path)
    usable = {name: np.load(GOLDEN / "bad" / case["values"][name]) for name in case["usable"]}
    want = dict(usable)
    if case["path"] not in LEFT:
        want.setdefault("good", np.load(GOLDEN / "bad" / "expected" / "good.npy"))
        if "victim" not in want:
            want["victim"] = MENDED.get(case["path"], lambda path: VICTIM)(path)
    before = of_store(path)
    status, steps = repair(path)
    if case["path"] in LEFT:
        assert status == DAMAGED and of_store(path) == before and verified(path) == DAMAGED
        assert all(step["what"] and step["file"] for step in steps)
        return
    assert status == SOUND and verified(path) == SOUND
    if case["open_fails"] or case["damaged"] or case["store_read_only"]:
        assert steps
    for name, array in want.items():
        same(np.load(io.BytesIO(npk("get", path, name).stdout)), array)
    if case["path"].startswith(("interrupted_append", "legacy_")):    # this reader knows NumPack 0.7's rules only
        return
    got = npkread.read(path)
    assert got.keys() == want.keys()
    for name, array in want.items():
        same(got[name], array)


@pytest.mark.parametrize("name, words", [("meta_missing", ["good=int32:6x2", "victim=int16:100"]), ("meta_empty", ["good=i4:-1x2", "victim=<i2:-1"]),
                                         ("meta_entry_cut", ["victim=int16"]), ("meta_header_cut", ["good=int32:6,2", "victim=int16:100"]),
                                         ("dtype_200", ["victim=int16"])])
def test_what_the_user_knows_is_taken(name, words, tmp_path):
    path = copy_bad(name, tmp_path)
    status, steps = repair(path, *words)
    assert status == SOUND and steps and verified(path) == SOUND
    got = npkread.read(path)
    assert set(got) == {"good", "victim"}
    same(got["victim"], VICTIM)
    same(got["good"], np.load(GOLDEN / "bad" / "expected" / "good.npy"))


@pytest.mark.parametrize("words, said", [(["victim=int16:100"], None), (["good=int32:6x2", "victim=int16:99"], "200"),
                                         (["good=int32:6x2", "victim=int16:100", "other=int8:1"], "other")])
def test_a_description_must_fit(words, said, tmp_path):
    path = copy_bad("meta_missing", tmp_path)
    with untouched(path):
        done = npk("repair", path, *words)
        if said is None:    # one array would be forgotten
            assert done.returncode == DAMAGED and b"left: data_good.npkd" in done.stdout and b"change" not in done.stdout.split(b"\n")[0]
        else:
            assert done.returncode == REFUSED and said.encode() in done.stderr


@pytest.mark.parametrize("word", ["x", "x=", "x=int99", "x=int32:", "x=int32:4x", "x=int32:-2", "x=int32:ax4", "x=int32:4x-1"])
def test_nonsense_is_refused(word, tmp_path):
    path = copy_bad("meta_missing", tmp_path)
    with untouched(path):
        done = npk("repair", "-a", path, word)
    assert done.returncode == REFUSED and done.stdout == b"" and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name, words", [("data_short", []), ("bitmap_short", []), ("bitmap_stale", []), ("meta_huge_ndim", []),
                                         ("meta_missing", ["good=int32:6x2", "victim=int16:100"])])
def test_the_real_numpack_reads_what_was_mended(name, words, tmp_path):
    path = copy_bad(name, tmp_path)
    assert repair(path, *words)[0] == SOUND
    want = npkread.read(path)
    real = RealNumPack(tmp_path / "real")
    real.open(path)
    for array in ("good", "victim"):
        same(real.load(array), want[array])
    real.append({"victim": np.array([7, 8], "i2")})
    same(real.load("victim")[-2:], np.array([7, 8], "i2"))
    real.close()
    real.end()


def test_sound_stores_are_left_alone(tmp_path):
    for name in ("deletions.npk", "segmented.npk", "dtypes.npk", "fresh.npk", "empty.npk", "digits.npk"):
        path = pathlib.Path(shutil.copytree(GOLDEN / name, tmp_path / name))
        before = of_store(path)
        assert repair(path) == (SOUND, []) and contents(path) == before


# --- every byte --------------------------------------------------------------------------------------------------------


def make(tmp_path):
    rng = np.random.default_rng(11)
    specs = {
        "x": Spec(rng.integers(0, 99, (100, 4)).astype("i4"), deleted=[3, 64, 99]),
        "yy": Spec(rng.standard_normal(70)),
    }
    return write_store(tmp_path / "s.npk", specs)


def test_every_byte_of_the_metadata(tmp_path):
    """Whatever byte is damaged: a repair that says the store is sound has given every array its bytes back."""
    path, specs = make(tmp_path)
    whole = of_store(path)
    meta = whole["metadata.npkm"]
    truth = sorted(spec.logical().tobytes() for spec in specs.values())
    sound = 0
    for at in range(len(meta)):
        flipped = bytearray(meta)
        flipped[at] ^= 0x41
        (path / "metadata.npkm").write_bytes(flipped)
        done = npk("repair", "-a", path)
        assert done.returncode in (SOUND, DAMAGED) and done.stderr == b"", (at, done)
        if done.returncode == SOUND:
            sound += 1
            assert verified(path) == SOUND, at
            assert sorted(a.tobytes() for a in npkread.read(path).values()) == truth, (at, done)
        for p in path.iterdir():    # as it was
            if p.name.startswith(KEPT):
                shutil.rmtree(p)
        for name, data in whole.items():
            (path / name).write_bytes(data)
    assert sound > len(meta) // 2    # lengths, counts, sizes, magic, file names


def test_every_length_of_the_metadata(tmp_path):
    """A list that is cut anywhere is not touched until somebody says what it has lost; then the rows are there again."""
    path, specs = make(tmp_path)
    meta = (path / "metadata.npkm").read_bytes()
    for n in range(0, len(meta), 7):
        (path / "metadata.npkm").write_bytes(meta[:n])
        with untouched(path):
            done = npk("repair", path)
        assert done.returncode == DAMAGED and b"left: data_" in done.stdout and b"\nchange: " not in done.stdout, (n, done)
        words = [w for w in ("x=int32:100x4", "yy=float64:-1") if f"data_{w.split('=')[0]}.npkd".encode() in done.stdout]
        done = npk("repair", "-a", path, *words)
        assert done.returncode == SOUND and verified(path) == SOUND, (n, done)
        got = npkread.read(path)
        assert got.keys() == specs.keys()
        for name, spec in specs.items():
            same(got[name], spec.logical())


def test_every_length_of_the_data(tmp_path):
    """Whole rows stay, with the bitmap of those rows."""
    path, specs = make(tmp_path)
    whole, x = of_store(path), specs["x"]
    for n in [*range(1, 1600, 233), 15, 16, 17, 1024, 1599]:
        for name, data in whole.items():
            (path / name).write_bytes(data)
        os.truncate(path / "data_x.npkd", n)
        if n < 16:
            assert repair(path)[0] == DAMAGED
            continue
        status, steps = repair(path)
        rows = n // 16
        assert status == SOUND and {s["file"] for s in steps} >= {"metadata.npkm", "deleted_x.npkb"}
        same(npkread.read(path)["x"], np.delete(x.array[:rows], [r for r in x.deleted if r < rows], axis=0))
        assert (path / "deleted_x.npkb").read_bytes() == bitmap(rows, [r for r in x.deleted if r < rows])
        assert os.path.getsize(path / "data_x.npkd") == rows * 16


def test_every_length_of_the_bitmap(tmp_path):
    """The bits that are there count, and no row is hidden that has none."""
    path, specs = make(tmp_path)
    whole = (path / "deleted_x.npkb").read_bytes()
    for n in range(0, len(whole) + 20, 3):
        if n in (len(whole), 16):    # 16 bytes are a bitmap of the old form, without a header: nobody can tell
            continue
        (path / "deleted_x.npkb").write_bytes((whole + b"\xff" * 20)[:n])
        assert repair(path)[0] == SOUND and verified(path) == SOUND
        known = max(n - 16, 0) * 8
        same(npkread.read(path)["x"], np.delete(specs["x"].array, [r for r in [3, 64, 99] if r < known], axis=0))


def test_every_byte_of_the_bitmaps_header(tmp_path):
    path, specs = make(tmp_path)
    whole = (path / "deleted_x.npkb").read_bytes()
    for at in range(16):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        (path / "deleted_x.npkb").write_bytes(flipped)
        assert repair(path)[0] == SOUND and verified(path) == SOUND
        got = npkread.read(path)["x"]
        assert got.tobytes() in (specs["x"].logical().tobytes(), specs["x"].array.tobytes()) and (at == 0 or len(got) == 97), at


def test_segments(tmp_path):
    """The last segment keeps its whole rows; a list that is gone is made from the files; a hole in the middle stays."""
    array = np.arange(80, dtype="u2").reshape(40, 2)
    path, _ = write_store(tmp_path / "s.npk", {"seg": Spec(array, segment_rows=16, deleted=[1, 39])})
    os.truncate(path / "data_seg_segments" / "seg_000002.npkd", 4 * 3 + 1)
    assert repair(path)[0] == SOUND and verified(path) == SOUND
    same(npkread.read(path)["seg"], np.delete(array[:35], [1], axis=0))
    (path / "data_seg.npkseg").unlink()
    assert repair(path)[0] == SOUND
    same(npkread.read(path)["seg"], np.delete(array[:35], [1], axis=0))
    os.truncate(path / "data_seg_segments" / "seg_000000.npkd", 5)
    status, steps = repair(path)
    assert status == DAMAGED and steps[0]["file"] == "data_seg_segments/seg_000000.npkd" and steps[0]["byte"] == 5


def test_leftovers_go_and_foreign_files_stay(tmp_path):
    path, specs = make(tmp_path)
    for name in ("metadata.npkm.tmp.1_2_3", "data_x.npkd.tmp", "temp_1_data_x.npkd", ".npk-0123456789abcdef.tmp", "deleted_gone.npkb",
                 "numpackfs.journal.new", "numpackfs.base", "README", "data_mine.npkd"):
        (path / name).write_bytes(b"left")
    status, steps = repair(path)
    assert status == SOUND
    assert {s["file"] for s in steps} == {"metadata.npkm.tmp.1_2_3", "data_x.npkd.tmp", "temp_1_data_x.npkd", ".npk-0123456789abcdef.tmp",
                                          "deleted_gone.npkb", "numpackfs.journal.new", "numpackfs.base"}
    assert set(of_store(path)) == {"metadata.npkm", "data_x.npkd", "deleted_x.npkb", "data_yy.npkd", "README", "data_mine.npkd"}
    assert repair(path, "mine=uint8:2x2")[0] == SOUND
    same(npkread.read(path)["mine"], np.frombuffer(b"left", "u1").reshape(2, 2))


def test_a_list_that_was_on_its_way_takes_the_place_of_one_that_is_gone(tmp_path):
    path, specs = make(tmp_path)
    (path / "metadata.npkm").rename(path / "metadata.npkm.tmp.1_2_3")
    assert repair(path)[0] == SOUND
    got = npkread.read(path)
    for name, spec in specs.items():
        same(got[name], spec.logical())


def test_damage_never_becomes_an_empty_store(tmp_path):
    path = tmp_path / "s.npk"
    path.mkdir()
    assert repair(path) == (SOUND, [])    # a new one
    (path / "metadata.npkm").write_bytes(b"NPKB")
    status, steps = repair(path)
    assert status == DAMAGED and (path / "metadata.npkm").read_bytes() == b"NPKB"


# --- journal and lock --------------------------------------------------------------------------------------------------


def check_recovered(path):
    want = np.load(path.parent / "want.npz")
    got = npkread.read(path)
    assert set(got) == set(want)
    for name in want:
        same(got[name], want[name])
    assert not (path / "numpackfs.journal").exists()


def test_a_journal_is_carried_out(tmp_path):
    path = crashed(tmp_path)
    journal = (path / "numpackfs.journal").read_bytes()
    status, steps = repair(path)
    assert status == SOUND and "numpackfs.journal" in {s["file"] for s in steps}
    check_recovered(path)
    kept, = path.glob(KEPT + "*")
    assert (kept / "numpackfs.journal").read_bytes() == journal and verified(path) == SOUND


def test_a_damaged_tail_is_told(tmp_path):
    path = crashed(tmp_path)
    with open(path / "numpackfs.journal", "ab") as f:
        f.write(b"torn")
    status, steps = repair(path)
    assert status == SOUND and any(s["old"] == "4 bytes" and s["new"] == "none" for s in steps)
    check_recovered(path)


def foreign(path):
    """As NumPack does at its close: the same list as before our changes, but not the same entries."""
    meta = bytearray((path / "metadata.npkm").read_bytes())
    at = meta.index(b"data_x.npkd") + len(b"data_x.npkd") if b"data_x.npkd" in meta else len(meta) - 39
    meta[at] ^= 1
    (path / "metadata.npkm").write_bytes(meta)
    return bytes(meta)


def test_metadata_of_somebody_else_is_a_question(tmp_path):
    path = crashed(tmp_path)
    foreign(path)
    with untouched(path):
        done = npk("repair", "-a", path, "-r", "-x")
        assert done.returncode == REFUSED and b"both" in done.stderr
    status, why = repair(path)
    assert status == REFUSED and "--replay" in why and "--discard-journal" in why


@pytest.mark.parametrize("base", [True, False])
def test_replay(base, tmp_path):
    path = crashed(tmp_path)
    meta = foreign(path)
    if not base:
        (path / "numpackfs.base").unlink()
    assert repair_with(path, "--replay")[0] == SOUND
    check_recovered(path)
    kept, = path.glob(KEPT + "*")
    assert (kept / "metadata.npkm").read_bytes() == meta


def test_discard(tmp_path):
    path = crashed(tmp_path)
    meta, journal = foreign(path), (path / "numpackfs.journal").read_bytes()
    assert repair_with(path, "--discard-journal")[0] == SOUND
    assert (path / "metadata.npkm").read_bytes() == meta and not list(path.glob("numpackfs.*"))
    same(npkread.read(path)["x"], np.arange(200, dtype="i4").reshape(50, 4))
    kept, = path.glob(KEPT + "*")
    assert (kept / "numpackfs.journal").read_bytes() == journal


def repair_with(path, option):
    """A dry run first, which changes nothing; the option is not repeated: it is for a journal that is there no more."""
    with untouched(path):
        dry = npk("repair", path, option)
    assert dry.returncode == DAMAGED and dry.stderr == b""
    done = npk("repair", "--apply", path, option)
    assert done.stderr == b"", done
    again = npk("repair", path)
    assert again.returncode == SOUND, again
    return done.returncode, done.stdout


def test_a_journal_with_a_damaged_header_is_not_thrown_away(tmp_path):
    path = crashed(tmp_path)
    with open(path / "numpackfs.journal", "r+b") as f:
        f.write(b"X")
    damaged = (path / "numpackfs.journal").read_bytes()
    for words in (["ls", path], ["compact", path]):     # to read, and to write
        done = npk(*words)
        assert done.returncode == REFUSED and b"numpackfs.journal: byte 0: its header is damaged" in done.stderr, done
    assert (path / "numpackfs.journal").read_bytes() == damaged
    status, why = repair(path)
    assert status == REFUSED and "--discard-journal" in why
    assert repair_with(path, "--discard-journal")[0] == SOUND


def test_a_store_that_is_being_written_is_refused(tmp_path):
    lib = Library(tmp_path / "s.npk", tmp_path / "scratch")
    lib.save("x", np.arange(5))
    for words in ([], ["--apply"]):
        with untouched(tmp_path / "s.npk"):
            done = npk("repair", tmp_path / "s.npk", *words)
        assert done.returncode == BUSY and f"pid {lib.process.pid} on".encode() in done.stderr
    lib.close()
    assert repair(tmp_path / "s.npk") == (SOUND, [])


def test_the_name_of_a_dead_process_goes(tmp_path):
    path = crashed(tmp_path)
    assert (path / LOCK).read_bytes().startswith(b"pid ")
    done = npk("repair", path)
    assert done.returncode == DAMAGED and b"change: .numpackfs.lock: byte 0: whose lock it is: pid " in done.stdout
    assert npk("repair", "-a", path).returncode == SOUND
    assert (path / LOCK).read_bytes() == b""
