"""What the demo does with Python: pictures of digits in the terminal, and the real NumPack as the other process."""

import sys

import numpy as np

SHADES = " .:-=+*#%@"


def picture(images, labels):
    """Digits side by side, two characters for a pixel."""
    for line in range(images.shape[1]):
        print("   ".join("".join(2 * SHADES[int(v) * 9 // 16] for v in image[line]) for image in images).rstrip())
    print("   ".join(f"labelled {label}".ljust(16) for label in labels).rstrip())


def show(mountpoint, *rows):
    rows = [int(r) for r in rows]
    images = np.load(mountpoint + "/images.npy", mmap_mode="r")
    labels = np.load(mountpoint + "/labels.npy", mmap_mode="r")
    print(f"images.npy: {images.dtype} {images.shape}, mapped")
    picture(images[rows], labels[rows])


def drop(store, first, end):
    from numpack import NumPack

    with NumPack(store) as npk:
        for name in ("images", "labels"):
            npk.drop(name, list(range(int(first), int(end))))


def wait(mountpoint, rows):
    """Until new opens show so many rows; rows that never come end the demo with an error."""
    import time

    deadline = time.monotonic() + 60
    for name in ("images.npy", "labels.npy"):
        while (got := len(np.load(f"{mountpoint}/{name}"))) != int(rows):
            if time.monotonic() > deadline:
                sys.exit(f"{name} has {got} rows, not {rows}")
            time.sleep(0.05)
        print(f"{name}: {got} rows")


{"show": show, "drop": drop, "wait": wait}[sys.argv[1]](*sys.argv[2:])
