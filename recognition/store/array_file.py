"""A .npy file of many rows, written row by row from several threads."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ArrayWriter:
    """Writes an array file of shape (N, ...) in any order, from any thread.

    Plain writes instead of a memory map: a full disk is then an `OSError` here, not the end of the process. Rows that
    are never written are zeros.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._offset = self._file.tell()
        self._file.truncate(self._offset + shape[0] * self._row_bytes)

    def put(self, index: int, rows: NDArray[Any]) -> None:
        """Write one row, or several that follow each other, beginning at ``index``."""
        assert rows.dtype == self.dtype, "rows are of the file's type"
        single = rows.ndim == len(self.shape) - 1
        assert (rows.shape if single else rows.shape[1:]) == self.shape[1:], "rows are of the file's shape"
        assert 0 <= index <= self.shape[0] - (1 if single else len(rows)), "rows are within the file"
        view = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data.cast("B")
        at = self._offset + index * self._row_bytes
        while view:
            written = os.pwrite(self._file.fileno(), view, at)
            view, at = view[written:], at + written

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                os.fsync(self._file.fileno())
