"""A mounted array as a PyTorch Dataset, read by several worker processes.

    python3 contrib/python/examples/torch_rows.py MOUNTPOINT FEATURES LABELS      # names of two arrays of equal length

Each worker maps the files by itself: nothing is sent to it but the path, and no row is read before it is asked for. The pages
are the kernel's, once for all workers.
"""

import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class MountedRows(Dataset):
    """Row i of several arrays of a mount, as they were when the process first asked: what others append or drop does not show."""

    def __init__(self, mountpoint, *names):
        self.paths = [f"{mountpoint}/{name}.npy" for name in names]
        self.arrays = None
        lengths = {len(np.load(path, mmap_mode="r")) for path in self.paths}
        if len(lengths) != 1:
            raise ValueError(f"{', '.join(names)} have {sorted(lengths)} rows")
        self.length = lengths.pop()

    def __len__(self):
        return self.length

    def __getitems__(self, rows):       # a whole batch in one call, where the loader's version knows it
        if self.arrays is None:         # in the worker: maps are not inherited
            self.arrays = [np.load(path, mmap_mode="r") for path in self.paths]
        return [torch.from_numpy(a[rows]) for a in self.arrays]

    def __getitem__(self, row):
        return [t[0] for t in self.__getitems__([row])]


def loader(mountpoint, features, labels, workers=2, batch_size=64):
    rows = MountedRows(mountpoint, features, labels)
    return DataLoader(rows, batch_size=batch_size, shuffle=True, num_workers=workers, generator=torch.Generator().manual_seed(0),
                      collate_fn=lambda batch: batch)


def main(mountpoint, features, labels):
    torch.manual_seed(0)
    batches = loader(mountpoint, features, labels)
    x, y = next(iter(batches))
    model = torch.nn.Linear(x.shape[1], 1 + int(np.load(f"{mountpoint}/{labels}.npy", mmap_mode="r").max()))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for epoch in range(3):
        seen, right = 0, 0
        for x, y in batches:
            optimizer.zero_grad()
            scores = model(x.float())
            torch.nn.functional.cross_entropy(scores, y.long()).backward()
            optimizer.step()
            seen, right = seen + len(y), right + int((scores.argmax(1) == y).sum())
        print(f"epoch {epoch}: {seen} rows, {right} right")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT FEATURES LABELS")
    main(*sys.argv[1:])
