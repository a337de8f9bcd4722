"""The tests' own tools, where a mistake would make other tests pass for the wrong reason."""

import numpy as np

from harness import GOLDEN, differences, same, tree
from npkwrite import DTYPES, Spec, bitmap, write_store


def test_the_real_library_reads_what_our_writer_writes(real_numpack, tmp_path):
    rng = np.random.default_rng(31)
    arrays = {f"a_{d}": Spec((rng.random((70, 3)) * 2).astype(d), deleted=[0, 5, 69] if i % 2 else None)
              for i, d in enumerate(DTYPES)}
    store, specs = write_store(tmp_path / "s.npk", arrays)
    real_numpack.open(store)
    assert real_numpack.members() == sorted(specs)
    for name, spec in specs.items():
        same(real_numpack.load(name), spec.logical())
    real_numpack.close()


def test_the_bitmap_is_that_of_the_format_description():
    assert bitmap(10, [3]).hex() == "0a00000000000000" "0100000000000000" "f703000000000000"
    assert bitmap(60, [0], headerless=True).hex() == "feffffffffffff0f"


def test_a_change_of_a_tree_is_seen(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    before = tree(tmp_path)
    assert differences(before, tree(tmp_path)) == {}
    with open(tmp_path / "a", "r+b") as f:
        f.write(b"13")
    assert b"a" in differences(before, tree(tmp_path))
    (tmp_path / "b").touch()
    assert b"b" in differences(before, tree(tmp_path))


def test_golden_stores_are_complete():
    """A clone has them all, empty ones and those with odd names included."""
    assert len(list((GOLDEN / "bad").iterdir())) > 50
    assert (GOLDEN / "fresh.npk" / "metadata.npkm").stat().st_size == 20
