"""Makes the real NumPack importable in this environment, and says so when it cannot.

The wheel of numpack 0.5.0 brings an OpenBLAS that asks for a newer C library than Debian 12 has. Where the import fails
for that reason, the bundled library is replaced by a link to the system's, which has the same interface.
"""

import pathlib
import subprocess
import sys
import sysconfig


def importable():
    return subprocess.run([sys.executable, "-c", "import numpack"], capture_output=True, text=True)


def main():
    first = importable()
    if first.returncode == 0:
        return
    libs = pathlib.Path(sysconfig.get_paths()["platlib"]) / "numpack.libs"
    system = sorted(pathlib.Path("/usr/lib").glob("*/libopenblas.so.0"))
    if not system:
        sys.exit("numpack does not import, and there is no libopenblas.so.0 to give it:\n" + first.stderr)
    for bundled in libs.glob("libopenblas-*"):
        bundled.unlink()
        bundled.symlink_to(system[0])
    for bundled in libs.glob("libgfortran-*"):
        bundled.unlink()
    again = importable()
    if again.returncode != 0:
        sys.exit("numpack does not import:\n" + again.stderr)


if __name__ == "__main__":
    main()
