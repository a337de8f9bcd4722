"""A mounted array in pandas and polars: as a map, as CSV, and changed rows written back.

    python3 contrib/python/examples/tables.py MOUNTPOINT ARRAY      # a 2-d array; mounted read-write: makes ARRAY_means
"""

import sys

import numpy as np
import pandas as pd
import polars as pl


def main(mountpoint, name):
    x = np.load(f"{mountpoint}/{name}.npy", mmap_mode="r")
    columns = [f"c{i}" for i in range(x.shape[1])]

    df = pd.DataFrame(x, columns=columns, copy=False)               # over the map: no row is read yet
    assert np.shares_memory(df.to_numpy(), x)
    print(f"pandas {len(df)} rows, mean of c0 {df['c0'].mean():.4g}")

    for chunk in pd.read_csv(f"{mountpoint}/.numpack/arrays/{name}/data.csv", header=None, names=columns, dtype=x.dtype, chunksize=100,
                             float_precision="round_trip"):
        assert (chunk.to_numpy() == x[chunk.index[0]:chunk.index[-1] + 1]).all()
    print("pandas read the same from data.csv")

    frame = pl.from_numpy(x, schema=columns)                        # polars keeps columns: this is a copy
    best = frame.with_row_index("row").sort("c0", descending=True).head(2)
    print(f"polars {frame.height} rows, largest c0 in rows {', '.join(map(str, best['row']))}")
    with open(f"{mountpoint}/.numpack/arrays/{name}/data.csv", "rb") as f:      # a stream: polars would map a path, and cannot
        same = pl.read_csv(f.read(), has_header=False, new_columns=columns, schema_overrides=frame.schema)
    assert same.equals(frame)

    means = frame.select(pl.all().mean()).to_numpy().astype(x.dtype)
    np.save(f"{mountpoint}/{name}_means.npy", means)                # a result, saved in one step
    print(f"saved {name}_means {np.load(f'{mountpoint}/{name}_means.npy').shape}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT ARRAY")
    main(*sys.argv[1:])
