"""The weight of the entropy term, fixed or moved so that the policy's entropy stays near a target.

Its whole state is one number, which a checkpoint has to hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from altlas.config.sections import ObjectiveSection
from altlas.errors import CheckpointError


class EntropyWeight:
    """The weight of the entropy term for the next update.

    With a target H* it follows w <- clip(w exp(rate (H* - H)), min, max), H being the batch's mean entropy per token:
    the step of dual descent on log w under the constraint H >= H* (Haarnoja et al. 2018, "Soft actor-critic algorithms
    and applications", section 5). Without one it is entropy_weight for ever.
    """

    def __init__(self, section: ObjectiveSection) -> None:
        self._target = section.entropy_target
        self._rate = section.entropy_rate
        self._least, self._largest = section.entropy_weight_min, section.entropy_weight_max
        # A weight of 0 could never grow by factors, so the bounds hold from the start.
        self.weight = self._clip(section.entropy_weight) if self._target else section.entropy_weight

    def update(self, entropy: float) -> None:
        """Move the weight by the entropy that an update saw, nats per token."""
        if self._target:
            self.weight = self._clip(self.weight * math.exp(self._rate * (self._target - entropy)))

    def meta(self) -> dict[str, float]:
        """Return the state, fit for JSON."""
        return {"entropy_weight": self.weight}

    def load(self, meta: Mapping[str, float]) -> None:
        """Take the state that `meta` returned; other keys are left alone.

        Raises:
            CheckpointError: it is not there.
        """
        if "entropy_weight" not in meta:
            raise CheckpointError("trainer state lacks entropy_weight; take another checkpoint")
        self.weight = float(meta["entropy_weight"])

    def _clip(self, weight: float) -> float:
        return min(max(weight, self._least), self._largest)
