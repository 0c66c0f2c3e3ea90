"""Reading a pickle of byte arrays and plain containers without letting it run anything.

A pickle may name any function to call. Here the only names that resolve are stand-ins for NumPy's array and dtype
constructors, written below; even NumPy's own are not called, since a forged dtype state can make them misread memory.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from cuttlefish.errors import CuttlefishError


def read_arrays(path: Path) -> dict[str, Any]:
    """The pickled dictionary in `path`, its uint8 arrays as ndarrays. Raises CuttlefishError for anything else."""
    try:
        content = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
    except Exception as error:  # a broken pickle may raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CuttlefishError(
            f"{path} is not a pickle of byte arrays and plain containers ({reason}): replace it by the original"
        ) from error


class ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return STAND_INS[module, name]


class _Dtype:
    """numpy.dtype("u1"); its state holds nothing that matters for bytes."""

    def __init__(self, code: str, *flags: Any):
        if code != "u1":
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    array: np.ndarray

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes | str]) -> None:
        _, shape, dtype, fortran_order, raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without a type")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _new_array(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it uses the codec {encoding!r}")
    return text.encode("latin1")


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
