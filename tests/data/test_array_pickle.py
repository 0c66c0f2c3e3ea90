import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cuttlefish.data.array_pickle import read_arrays
from cuttlefish.errors import CuttlefishError


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@settings(deadline=None, max_examples=40)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, max_side=6)),
    labels=st.lists(st.integers(0, 99), max_size=5),
    protocol=st.sampled_from([2, 3, 4]),
    fortran=st.booleans(),
)
def test_reads_what_the_ordinary_pickle_reads(tmp_path_factory, array, labels, protocol, fortran):
    path = tmp_path_factory.mktemp("pickle") / "batch"
    content = {"data": np.asfortranarray(array) if fortran else array, "labels": labels, "name": "bätch"}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_arrays(path)
    np.testing.assert_array_equal(read["data"], array)
    assert read["data"].dtype == np.uint8
    assert (read["labels"], read["name"]) == (labels, "bätch")


@pytest.mark.parametrize(
    "function", [os.system, subprocess.getoutput, eval, exec, __import__, getattr, np.load, np.fromfile]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_refuses_to_call_anything_else(tmp_path, function, protocol):
    marker = tmp_path / "marker"
    payload = {"data": Calls(function, f"touch {marker}"), "labels": [0]}
    (tmp_path / "batch").write_bytes(pickle.dumps(payload, protocol=protocol))
    with pytest.raises(CuttlefishError, match="it refers to"):
        read_arrays(tmp_path / "batch")
    assert not marker.exists()


def test_the_payload_is_real(tmp_path):
    """Read in the ordinary way, the pickle that is refused above does run its command."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {marker}")))
    assert marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], dtype=object),
        np.zeros(2),
        np.zeros(2, dtype="u1,u1"),
        np.array(["x"]),
        np.uint8(3),
        Calls(np.dtype, "O", False, True),
        Calls(np.ndarray, 3),
        np.ndarray,
    ],
)
def test_refuses_other_arrays(tmp_path, value):
    (tmp_path / "batch").write_bytes(pickle.dumps([value], protocol=2))
    with pytest.raises(CuttlefishError, match="not a pickle of byte arrays"):
        read_arrays(tmp_path / "batch")


@pytest.mark.parametrize(
    "content", [b"", b"no pickle at all", pickle.dumps([1, 2]), pickle.dumps({"data": b"x" * 99})[:50]]
)
def test_refuses_what_is_no_dictionary_or_is_cut_off(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(CuttlefishError, match="batch is not a pickle"):
        read_arrays(tmp_path / "batch")


def test_refuses_an_array_longer_than_its_bytes(tmp_path):
    pickled = pickle.dumps({"data": np.zeros((3, 5), np.uint8)}, protocol=2)
    forged = pickled.replace(b"K\x03K\x05\x86", b"K\x03K\x7f\x86")
    assert forged != pickled
    (tmp_path / "batch").write_bytes(forged)
    with pytest.raises(CuttlefishError, match="cannot reshape"):
        read_arrays(tmp_path / "batch")
