"""numpackfs.io on S3: moto's server answers on this machine, s3fs asks it."""

import os

import numpy as np
import pytest

from numpackfs import NumPack, io

FILES = ["x.npy", "x.npz", "x.csv", "x.txt", "x.safetensors", "x.parquet", "x.feather", "x.h5", "x.zarr", "x.pt"]
X = np.random.default_rng(1).random((300, 3)).astype("f4")


@pytest.fixture(scope="module")
def s3():
    """What to_s3() and from_s3() want besides the URL; the bucket `bucket` is there."""
    import s3fs
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:      # what the user has set up for S3 is not for this one
        for name in [n for n in os.environ if n.startswith("AWS_") or n.lower().endswith("_proxy")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        try:
            host, port = server.get_host_and_port()
            where = {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
            s3fs.S3FileSystem(**where).mkdir("bucket")
            yield where
        finally:
            server.stop()


@pytest.fixture
def files(s3):
    import s3fs

    return s3fs.S3FileSystem(**s3, use_listings_cache=False)


@pytest.fixture
def store(tmp_path):
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": X})
    return tmp_path / "s.npk"


def load(path):
    with NumPack(path) as n:
        return {name: n.load(name) for name in n}


@pytest.mark.parametrize("name", FILES)
def test_each_format_there_and_back(tmp_path, store, s3, files, name):
    told = []
    io.to_s3(store, f"s3://bucket/deep/{name}", progress=lambda *a: told.append(a), **s3)
    assert told[-1] == (300, 300) and files.exists(f"bucket/deep/{name}")
    told.clear()
    n = io.from_s3(f"s3://bucket/deep/{name}", tmp_path / "b.npk", return_npk_obj=True, progress=lambda *a: told.append(a), **s3)
    assert told[-1] == (300, 300)
    got = n.load("x")
    n.close()
    assert got.shape == X.shape
    np.testing.assert_array_equal(got.astype("f4"), X)      # text is read as float64


def test_what_is_in_the_bucket_is_the_file(store, s3, files):
    io.to_s3(store, "s3://bucket/x.npy", **s3)
    with files.open("bucket/x.npy") as f:
        np.testing.assert_array_equal(np.load(f), X)


def test_an_object_without_a_suffix_is_replaced_and_read_by_the_named_format(tmp_path, store, s3, files):
    files.pipe("bucket/data", b"something else")
    io.to_s3(store, "s3://bucket/data", format="parquet", array_name="x", **s3)
    io.from_s3("s3://bucket/data", tmp_path / "b.npk", format="parquet", array_name="mine", **s3)
    assert list(load(tmp_path / "b.npk")) == ["mine"]
    np.testing.assert_array_equal(load(tmp_path / "b.npk")["mine"], X)


def test_what_is_not_there(tmp_path, store, s3, files):
    with pytest.raises(FileNotFoundError):
        io.from_s3("s3://bucket/nobody.npy", tmp_path / "b.npk", **s3)
    with pytest.raises(FileNotFoundError):
        io.from_s3("s3://nobody/x.npy", tmp_path / "b.npk", **s3)
    assert not (tmp_path / "b.npk").exists()
    with pytest.raises(FileNotFoundError):
        io.to_s3(store, "s3://nobody/deep/x.npy", **s3)
    assert not files.exists("nobody")      # a wrong name makes no bucket
    with pytest.raises(ValueError):
        io.from_s3("bucket/x.npy", tmp_path / "b.npk", **s3)
