"""Numbers programs in the order in which a run first saw them.

A program is known by the first 8 bytes of its fingerprint: among twenty million the chance that any two share them is
one in a hundred thousand. Open addressing with linear probing (Knuth, The Art of Computer Programming, volume 3,
section 6.4, algorithm L), a batch at a time: a dict would take some 130 bytes for each program.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.program import FINGERPRINT_BYTES

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
_EMPTY = -1
_LEAST_SLOTS = 1 << 12


def keys_of(fingerprints: list[bytes]) -> Keys:
    """Return the first 8 bytes of each fingerprint, as little-endian numbers [B]."""
    words = np.frombuffer(b"".join(fingerprints), dtype="<u8").reshape(-1, FINGERPRINT_BYTES // 8)
    return words[:, 0].astype(np.uint64)


class FingerprintIndex:
    """The keys that were seen; a key's row is its place among them."""

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = np.empty(_LEAST_SLOTS, dtype=np.uint64)
        self._slots = np.full(_LEAST_SLOTS, _EMPTY, dtype=np.int32)
        self._count = 0
        if keys is not None:
            self.add(keys)

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> Keys:
        """Every key, by row."""
        return self._keys[: self._count]

    def add(self, keys: Keys) -> Rows:
        """Return the row of each key, [B]; keys not there yet get the next rows, in their order."""
        unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        by_age = np.argsort(first)
        rows = np.empty(len(unique), dtype=np.int64)
        rows[by_age] = self._add_unique(unique[by_age])
        return rows[inverse]

    def _add_unique(self, keys: Keys) -> Rows:
        rows = self._find(keys)
        is_new = rows == _EMPTY
        new = keys[is_new]
        rows[is_new] = np.arange(self._count, self._count + len(new))
        self._make_room(self._count + len(new))
        self._keys[self._count : self._count + len(new)] = new
        self._count += len(new)
        self._place(new, rows[is_new])
        return rows

    def _find(self, keys: Keys) -> Rows:
        found = np.full(len(keys), _EMPTY, dtype=np.int64)
        slots = self._home(keys)
        pending = np.arange(len(keys))
        while len(pending):
            held = self._slots[slots]
            is_same = (held != _EMPTY) & (self._keys[held] == keys[pending])
            found[pending[is_same]] = held[is_same]
            goes_on = (held != _EMPTY) & ~is_same
            pending, slots = pending[goes_on], self._next(slots[goes_on])
        return found

    def _place(self, keys: Keys, rows: Rows) -> None:
        """Put rows of keys that are in no slot yet into the first empty one each."""
        slots = self._home(keys)
        while len(rows):
            is_empty = self._slots[slots] == _EMPTY
            self._slots[slots[is_empty]] = rows[is_empty]
            # Of several that wanted one slot the last one written has it.
            is_left = self._slots[slots] != rows
            rows, slots = rows[is_left], self._next(slots[is_left])

    def _home(self, keys: Keys) -> Rows:
        return (keys & np.uint64(len(self._slots) - 1)).astype(np.int64)

    def _next(self, slots: Rows) -> Rows:
        return (slots + 1) & (len(self._slots) - 1)

    def _make_room(self, count: int) -> None:
        """Keep at least half of the slots empty, so that probes are short."""
        size = len(self._slots)
        while size < 2 * count:
            size *= 2
        if size > len(self._slots):
            grown = np.empty(size // 2, dtype=np.uint64)
            grown[: self._count] = self.keys
            self._keys = grown
            self._slots = np.full(size, _EMPTY, dtype=np.int32)
            self._place(self.keys, np.arange(self._count))
