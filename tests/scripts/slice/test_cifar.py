"""CIFAR-10's files, squeezed without loss."""

import hashlib
import pickle

import numpy as np
import pytest

from scripts.slice.cifar import expand, pack_files, squeeze, unpack_files


def batch(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 3072)).astype(np.uint8)
    labels = list(range(10)) * (count // 10)
    return {b"batch_label": b"made up", b"labels": labels, b"data": images.tobytes()}


@pytest.mark.parametrize("count", [10, 1000])
def test_every_byte_comes_back(count):
    content = pickle.dumps(batch(count), protocol=2)
    assert expand(squeeze(content)) == content


def test_a_file_without_images_comes_back_too():
    assert expand(squeeze(b"names of classes")) == b"names of classes"


def test_only_the_published_file_is_written(tmp_path):
    content = pickle.dumps(batch(10), protocol=2)
    (tmp_path / "data_batch_1").write_bytes(content)
    pack_files([tmp_path / "data_batch_1"], tmp_path / "packed.zip")
    unpack_files(
        tmp_path / "packed.zip", tmp_path / "data", {"data_batch_1": hashlib.md5(content).hexdigest()}
    )
    assert (tmp_path / "data" / "data_batch_1").read_bytes() == content
    with pytest.raises(ValueError, match="data_batch_1 of .* is not the published file"):
        unpack_files(tmp_path / "packed.zip", tmp_path / "other", {"data_batch_1": "0" * 32})
    assert not (tmp_path / "other" / "data_batch_1").exists()
