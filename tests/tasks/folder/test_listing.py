"""What a folder of images must look like, what is said where it does not, and its digest."""

import logging
import shutil

import numpy as np
import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.listing import SMALL, Listing, Split, list_images
from tests.helpers.photos import photo, write_photos


@pytest.fixture
def root(tmp_path):
    return write_photos(tmp_path / "set")


def test_images_are_listed_by_class_and_name(root):
    (root / "train" / "n0001" / ".hidden.JPEG").write_bytes(b"")
    (root / "train" / "n0001" / "notes.txt").write_text("no image")
    found = list_images(root)
    assert found.classes == ("n0000", "n0001", "n0002")
    assert found.train.files[:5].tolist() == [
        *(b"train/n0000/0_%d.JPEG" % number for number in range(4)), b"train/n0001/1_0.JPEG",
    ]  # fmt: skip
    assert np.bincount(found.train.labels).tolist() == [4, 4, 4] and len(found.val) == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: shutil.rmtree(root / "val"), "there is no folder .*val: images must lie in"),
        (
            lambda root: shutil.rmtree(root / "val" / "n0002"),
            "3 classes in train and 2 in val: n0002 is in train only",
        ),
        (lambda root: shutil.copytree(root / "val" / "n0002", root / "val" / "x"), "x is in val only"),
        (
            lambda root: [path.unlink() for path in (root / "train" / "n0001").iterdir()],
            "class n0001 has no images in .*train",
        ),
    ],
)
def test_another_structure_is_refused_in_one_sentence(root, change, told):
    change(root)
    with pytest.raises(CuttlefishError, match=told) as caught:
        list_images(root)
    assert "\n" not in str(caught.value)


def test_images_without_class_folders_are_named_as_such(tmp_path):
    (tmp_path / "train").mkdir()
    photo(0).save(tmp_path / "train" / "a.jpg")
    with pytest.raises(CuttlefishError, match="train has images without class folders"):
        list_images(tmp_path)


def damage(root):
    """Truncate one image, empty another, and replace a third by text."""
    folder = root / "train" / "n0000"
    whole = (folder / "0_1.JPEG").read_bytes()
    (folder / "0_1.JPEG").write_bytes(whole[: len(whole) // 2])
    (folder / "0_2.JPEG").write_bytes(b"")
    (root / "val" / "n0001" / "1_0.JPEG").write_text("not an image")
    (root / "val" / "n0002" / "2_0.JPEG").write_bytes(whole + b"\0" * 200)  # padded, but whole
    return ["train/n0000/0_1.JPEG", "train/n0000/0_2.JPEG", "val/n0001/1_0.JPEG"]


def test_damaged_images_are_listed_before_training(root):
    names = damage(root)
    with pytest.raises(CuttlefishError, match=f"3 damaged or unreadable images in .*: {', '.join(names)};"):
        list_images(root)


def test_damaged_images_are_skipped_only_if_asked(root, caplog):
    names = damage(root)
    with caplog.at_level(logging.WARNING, "cuttlefish"):
        found = list_images(root, skip_damaged=True)
    assert not set(found.train.files.tolist()) & {name.encode() for name in names}
    assert (len(found.train), len(found.val)) == (10, 5) and "3 damaged" in caplog.text


def test_a_class_of_damaged_images_only_is_empty(root):
    for path in (root / "val" / "n0001").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CuttlefishError, match="class n0001 has no images"):
        list_images(root, skip_damaged=True)


def test_the_digest_is_of_names_and_content_wherever_they_lie(root, tmp_path):
    digest = list_images(root).digest()
    assert list_images(shutil.copytree(root, tmp_path / "moved")).digest() == digest
    changed = root / "train" / "n0000" / "0_0.JPEG"
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    changed.rename(changed.with_name("same.JPEG")), changed.with_name("same.JPEG").rename(changed)
    assert list_images(root).digest() != digest


def test_a_large_folder_s_digest_reads_no_content(tmp_path):
    split = Split(np.array([b"train/a/1.jpg"]), np.array([SMALL + 1]), np.array([0]))
    one = Listing(tmp_path, ("a",), split, split).digest()
    other = Split(split.files, split.sizes + 1, split.labels)
    assert one != Listing(tmp_path, ("a",), split, other).digest()
