"""Tensors of a safetensors file in memory, without a copy."""

from __future__ import annotations

import json
import struct
import warnings
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

_HEADER_BYTES_MAX = 100_000_000
"""As in the safetensors library."""

# Name in the header: bytes of an element, and what numpy and torch call it.
_DTYPES: Dict[str, Tuple[int, Optional[str], str]] = {
    "BOOL": (1, "bool", "bool"),
    "U8": (1, "uint8", "uint8"),
    "I8": (1, "int8", "int8"),
    "U16": (2, "uint16", "uint16"),
    "I16": (2, "int16", "int16"),
    "F16": (2, "float16", "float16"),
    "BF16": (2, None, "bfloat16"),
    "U32": (4, "uint32", "uint32"),
    "I32": (4, "int32", "int32"),
    "F32": (4, "float32", "float32"),
    "U64": (8, "uint64", "uint64"),
    "I64": (8, "int64", "int64"),
    "F64": (8, "float64", "float64"),
    "C64": (8, "complex64", "complex64"),
    "F8_E4M3": (1, None, "float8_e4m3fn"),
    "F8_E5M2": (1, None, "float8_e5m2"),
}
# What the package ml_dtypes adds to numpy.
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


class _Tensor(NamedTuple):
    dtype: str
    shape: Tuple[int, ...]
    start: int
    elements: int


class SafeFile:
    """As the object that `safetensors.safe_open` gives: `keys`, `offset_keys`, `metadata`, `get_tensor`, `get_slice`."""

    def __init__(self, buffer: Any, framework: str, device: Any, check: Callable[[], None]) -> None:
        frameworks = {"np": "np", "numpy": "np", "pt": "pt", "torch": "pt", "pytorch": "pt"}
        if framework not in frameworks:
            raise ValueError(f"framework {framework!r} is none of np, pt")
        if device is not None and frameworks[framework] == "np":
            raise ValueError("numpy has no devices")
        self._buffer = buffer
        self._framework = frameworks[framework]
        self._device = device
        self._check = check
        self._metadata, self._tensors = _parse(buffer)

    def __enter__(self) -> "SafeFile":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def keys(self) -> List[str]:
        """The names of all tensors, sorted."""
        return sorted(self._tensors)

    def offset_keys(self) -> List[str]:
        """The same in the order in which they lie in the file."""
        return sorted(self._tensors, key=lambda name: (self._tensors[name].start, name))

    def metadata(self) -> Optional[Dict[str, str]]:
        """What the header says of the file, if anything."""
        return self._metadata

    def get_tensor(self, name: str) -> Any:
        """A view of a tensor; a copy only where it has to go to another device. Raises `LeaseLost`."""
        self._check()
        if name not in self._tensors:
            raise KeyError(f"there is no tensor {name!r}")
        tensor = self._tensors[name]
        if self._framework == "np":
            return _numpy(self._buffer, tensor)
        view = _torch(self._buffer, tensor)
        return view if self._device is None else view.to(self._device)

    def get_slice(self, name: str) -> "SafeSlice":
        """A tensor of which parts are taken by indexing."""
        if name not in self._tensors:
            raise KeyError(f"there is no tensor {name!r}")
        return SafeSlice(self, name, self._tensors[name])


class SafeSlice:
    """A tensor of which parts are taken by indexing: views too."""

    def __init__(self, file: SafeFile, name: str, tensor: _Tensor) -> None:
        self._file = file
        self._name = name
        self._tensor = tensor

    def get_shape(self) -> List[int]:
        """Its shape."""
        return list(self._tensor.shape)

    def get_dtype(self) -> str:
        """Its type as the header names it, such as `F32`."""
        return self._tensor.dtype

    def __getitem__(self, index: Any) -> Any:
        return self._file.get_tensor(self._name)[index]


def _parse(buffer: Any) -> Tuple[Optional[Dict[str, str]], Dict[str, _Tensor]]:
    """The header. Whatever it says that does not fit the file is an error, not a view of something else."""
    length = len(buffer)
    if length < 8:
        raise ValueError("no safetensors file: it is too short")
    (size,) = struct.unpack("<Q", bytes(buffer[:8]))
    if size > min(_HEADER_BYTES_MAX, length - 8):
        raise ValueError("no safetensors file: its header is longer than it")
    header = json.loads(bytes(buffer[8 : 8 + size]))
    metadata = header.pop("__metadata__", None)
    return metadata, {name: _tensor(name, entry, 8 + size, length) for name, entry in header.items()}


def _tensor(name: str, entry: Dict[str, Any], data: int, length: int) -> _Tensor:
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"tensor {name!r} is of type {dtype!r}, which is not known here")
    count = 1
    for extent in shape:
        if not isinstance(extent, int) or extent < 0:
            raise ValueError(f"tensor {name!r} has no shape")
        count *= extent
    if not 0 <= start <= end <= length - data or end - start != count * _DTYPES[dtype][0]:
        raise ValueError(f"tensor {name!r} does not lie in its file")
    return _Tensor(dtype, shape, data + start, count)


def _numpy(buffer: Any, tensor: _Tensor) -> Any:
    import numpy

    name = _DTYPES[tensor.dtype][1]
    if name is not None:
        dtype = numpy.dtype(name)
    else:
        try:
            import ml_dtypes
        except ImportError as error:
            raise TypeError(f"numpy has no {tensor.dtype}: install ml_dtypes, or use framework='pt'") from error
        dtype = numpy.dtype(getattr(ml_dtypes, _ML_DTYPES[tensor.dtype]))
    if tensor.elements == 0:
        return numpy.empty(tensor.shape, dtype)
    return numpy.frombuffer(buffer, dtype, tensor.elements, tensor.start).reshape(tensor.shape)


def _torch(buffer: Any, tensor: _Tensor) -> Any:
    import torch

    dtype = getattr(torch, _DTYPES[tensor.dtype][2])
    if tensor.elements == 0:
        return torch.empty(tensor.shape, dtype=dtype)
    with warnings.catch_warnings():
        # That the memory is read-only is what is wanted.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        view = torch.frombuffer(buffer, dtype=dtype, count=tensor.elements, offset=tensor.start)
    return view.reshape(tensor.shape)
