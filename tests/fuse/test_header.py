"""-o header=4096: the same array with a header padded to a page, which numpy reads as well."""

import numpy as np

from harness import same


def test_header_padded_to_a_page(mount, golden_copy):
    store = golden_copy("dtypes.npk")
    with mount(store) as plain:
        names = sorted(p.name[:-4] for p in plain.path.iterdir())
        want = {name: plain.load(name) for name in names}
    with mount(store, "header=4096") as m:
        for name in names:
            raw = m.array(name).read_bytes()
            assert len(raw) == 4096 + want[name].nbytes and raw[4096:] == want[name].tobytes(), name
            same(m.load(name), want[name])
            same(np.load(m.array(name), mmap_mode="r"), want[name])
