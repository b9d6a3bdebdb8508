"""The scores that this process knows: arrays by the row of FingerprintIndex, for the whole run.

Rows that a checkpoint brought are seen, but their scores are not known until they are stored again. Error texts are not
kept: they are wanted of a program's first sighting alone.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from altlas.core.score_batch import ScoreBatch
from altlas.errors import ProtocolError
from altlas_coordinator.fingerprint_index import Rows

_COLUMNS = tuple(item.name for item in fields(ScoreBatch) if item.name not in ("component_names", "errors"))
_KEPT_AS = {"cases_passed": np.dtype(np.uint16)}


class KnownScores:
    """Scores on one task, by row."""

    def __init__(self) -> None:
        self._columns: dict[str, npt.NDArray[np.generic]] = {}
        self._component_names: tuple[str, ...] = ()
        self._is_known = np.zeros(1, dtype=np.bool_)

    def knows(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return whether the score of each row is there."""
        self._grow(int(rows.max(initial=-1)) + 1)
        return self._is_known[rows]

    def store(self, rows: Rows, scores: ScoreBatch) -> None:
        """Take the scores of rows.

        Raises:
            ProtocolError: they are of another task than those before.
        """
        if not self._columns:
            self._component_names = scores.component_names
            for name in _COLUMNS:
                column = getattr(scores, name)
                shape = (len(self._is_known), *column.shape[1:])
                self._columns[name] = np.zeros(shape, dtype=_KEPT_AS.get(name, column.dtype))
        cases = self._columns["case_rewards"].shape[1]
        if (scores.cases, scores.component_names) != (cases, self._component_names):
            raise ProtocolError(
                f"scores of {scores.cases} cases with components {', '.join(scores.component_names)}, but the run has "
                f"{cases} cases with {', '.join(self._component_names)}; are all evaluators of one version?"
            )
        self._grow(int(rows.max(initial=-1)) + 1)
        for name in self._kept():
            self._columns[name][rows] = getattr(scores, name)
        self._is_known[rows] = True

    def take(self, rows: Rows, *, errors: tuple[str, ...] = ()) -> ScoreBatch:
        """Return the scores of rows, which may repeat, with the errors given, one per row or none."""
        taken = {name: self._columns[name][rows] for name in self._kept()}
        taken["cases_passed"] = taken["cases_passed"].astype(np.int64)
        return ScoreBatch(**taken, component_names=self._component_names, errors=errors)  # type: ignore[arg-type]

    def _kept(self) -> list[str]:
        """Return the columns in use: without names of components there is no column of them."""
        return [name for name in _COLUMNS if name != "components" or self._component_names]

    def _grow(self, count: int) -> None:
        held = len(self._is_known)
        if count <= held:
            return
        size = max(count, 2 * held)
        self._is_known = np.concatenate([self._is_known, np.zeros(size - held, dtype=np.bool_)])
        for name in self._kept() if self._columns else ():
            column = self._columns[name]
            missing = np.zeros((size - held, *column.shape[1:]), dtype=column.dtype)
            self._columns[name] = np.concatenate([column, missing])
