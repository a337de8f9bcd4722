"""A mounted array as pyarrow sees it: an Arrow array over the mapped file, without a copy.

    python3 contrib/python/examples/arrow_map.py MOUNTPOINT ARRAY      # a 2-d array of numbers
"""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def rows_of(path):
    """The rows of a .npy file as lists of fixed size, over pyarrow's own memory map of it."""
    source = pa.memory_map(path)
    version = np.lib.format.read_magic(source)
    assert version == (1, 0), version
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(source)
    assert len(shape) == 2 and not fortran
    values = pa.Array.from_buffers(pa.from_numpy_dtype(dtype), shape[0] * shape[1], [None, source.read_buffer()])
    return pa.FixedSizeListArray.from_arrays(values, shape[1])


def main(mountpoint, name):
    before = pa.total_allocated_bytes()
    rows = rows_of(f"{mountpoint}/{name}.npy")
    print(f"{len(rows)} rows of {rows.type}, {pa.total_allocated_bytes() - before} bytes allocated")
    print(f"sum {pc.sum(rows.flatten()).as_py():.6g}")
    first = pc.list_element(rows, 0)
    print(f"c0 between {pc.min(first).as_py():.6g} and {pc.max(first).as_py():.6g}")
    table = pa.table({name: rows})
    print(f"table of {table.num_rows} rows, row 1 is row {pc.index(first, table[name][1].as_py()[0]).as_py()}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT ARRAY")
    main(*sys.argv[1:])
