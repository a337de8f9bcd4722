"""Packages read and written from the format's description, without the library: an independent second opinion."""

import dataclasses
import struct
import subprocess
import sys
import zlib

import zstandard

HEAD = struct.Struct("<4sIBI")


@dataclasses.dataclass
class Member:
    name: str
    original: int
    stored: int     # 0: as it is
    data: bytes     # decoded
    codec: str


def parse(path):
    """(version, compression, [Member]); everything about the package is asserted on the way."""
    raw = path.read_bytes()
    magic, version, compression, count = HEAD.unpack_from(raw)
    assert magic == b"NPKG" and version in (1, 2) and compression in (0, 1)
    at, members, crc = HEAD.size, [], 0
    for _ in range(count):
        (n,) = struct.unpack_from("<I", raw, at)
        name = raw[at + 4:at + 4 + n].decode()
        original, stored = struct.unpack_from("<QQ", raw, at + 4 + n)
        at += 20 + n
        blob = raw[at:at + (stored or original)]
        at += len(blob)
        data, codec = decode(blob, original) if stored else (blob, "none")
        assert len(data) == original and len(blob) == (stored or original)
        crc = zlib.crc32(data, crc) if version == 1 else zlib.crc32(struct.pack("<I", zlib.crc32(data)), crc)
        members.append(Member(name, original, stored, data, codec))
    assert struct.unpack("<I", raw[at:]) == (crc,)
    return version, compression, members


def decode(blob, original):
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        decoder = zstandard.ZstdDecompressor().decompressobj()      # one frame, and nothing behind it
        data = decoder.decompress(blob)
        assert decoder.eof and not decoder.unused_data
        return data, "zstd"
    decoder = zlib.decompressobj()
    data = decoder.decompress(blob) + decoder.flush()
    assert decoder.eof and not decoder.unused_data and blob[0] == 0x78
    return data, "zlib"


def raw_member(name, data, blob=None, original=None):
    """The bytes of a member; `blob` is what is stored of it, when that is not the data."""
    name = name if isinstance(name, bytes) else name.encode()
    stored = 0 if blob is None else len(blob)
    return (struct.pack("<I", len(name)) + name + struct.pack("<QQ", len(data) if original is None else original, stored)
            + (data if blob is None else blob))


def package(members, version=2, compression=1, count=None, crc=None):
    """The bytes of a package of (data, raw_member()) pairs, with the right checksum."""
    sums = 0
    for data, _ in members:
        sums = zlib.crc32(data, sums) if version == 1 else zlib.crc32(struct.pack("<I", zlib.crc32(data)), sums)
    return (HEAD.pack(b"NPKG", version, compression, len(members) if count is None else count)
            + b"".join(raw for _, raw in members) + struct.pack("<I", sums if crc is None else crc))


def real(call, *args, zstd=True, **kw):
    """A call of the real NumPack's package module, in another process; with or without the module zstandard."""
    script = "import sys\n" + ("" if zstd else "sys.modules['zstandard'] = None\n") + \
        f"import numpack\nnumpack.{call}(*{[str(a) for a in args]!r}, **{kw!r})\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
