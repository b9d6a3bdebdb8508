"""The reward of brainf programs, as docs/brainf.md words it, and hashes of what they wrote.

Importing this needs numba; nothing is compiled before the first call.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled_inside
from altlas_evaluator.languages.brainf.decoding import ByteArray, IntArray

ENDED = 0
STEP_LIMIT = 1

# Odd constants with bits all over: those of xxHash64 and SplitMix64.
SEED_A, SEED_B = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_A, _PRIME_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_A, _SHIFT_B = np.uint64(29), np.uint64(31)
_LIMIT_MARK = np.uint64(0xD6E8FEB86659FD93)  # in place of a hash of outputs


@compiled_inside
def mix_a(state: np.uint64, value: np.uint64) -> np.uint64:
    state = (state ^ value) * _PRIME_A
    return state ^ (state >> _SHIFT_A)


@compiled_inside
def mix_b(state: np.uint64, value: np.uint64) -> np.uint64:
    state = (state ^ value) * _PRIME_B
    return state ^ (state >> _SHIFT_B)


@compiled_inside
def hash_case(outputs: IntArray, written: int, case: int, hashes: npt.NDArray[np.uint64]) -> None:
    """Set two independent hashes of the outputs and their number, `hashes[:, case]`."""
    hash_a = mix_a(SEED_A, np.uint64(written))
    hash_b = mix_b(SEED_B, np.uint64(written))
    for index in range(written):
        value = np.uint64(outputs[index])
        hash_a = mix_a(hash_a, value)
        hash_b = mix_b(hash_b, value)
    hashes[0, case] = hash_a
    hashes[1, case] = hash_b


@compiled_inside
def grade_case(
    outputs: IntArray,
    written: int,
    targets: IntArray,
    target_ends: IntArray,
    base: int,
    exact_bonus: float,
    case: int,
    rewards: npt.NDArray[np.float64],
    exact: IntArray,
) -> None:
    """Set the case's reward, and 1 where it is exact, else 0.

    The distance is the sum of |output - target| over what both have, and `base` for each that one has alone.
    """
    begin = target_ends[case - 1] if case else 0
    size = target_ends[case] - begin
    common = min(written, size)
    distance = float(base) * (max(written, size) - common)
    differing = written ^ size
    for index in range(common):
        output, target = outputs[index], targets[begin + index]
        distance += abs(float(output) - float(target))
        differing |= output ^ target
    reward = 1.0 - distance / (float(base) * max(1, size))
    rewards[case] = reward + exact_bonus if differing == 0 else reward
    exact[case] = differing == 0


@compiled_inside
def sum_up(
    program: int,
    graded: int,
    rewards: npt.NDArray[np.float64],
    exact: IntArray,
    hashes: npt.NDArray[np.uint64],
    totals: npt.NDArray[np.float64],
    passed: IntArray,
    statuses: ByteArray,
    behaviours: npt.NDArray[np.uint64],
    case_rewards: npt.NDArray[np.float32],
) -> None:
    """Set what is known of a program, the last five, from its first `graded` cases; the next one hit the limit."""
    cases = case_rewards.shape[1]
    total = 0.0
    solved = 0
    hash_a, hash_b = SEED_A, SEED_B
    for case in range(graded):
        total += rewards[case]
        solved += exact[case]
        case_rewards[program, case] = rewards[case] / 4.0
        hash_a = mix_a(hash_a, hashes[0, case])
        hash_b = mix_b(hash_b, hashes[1, case])
    if graded < cases:
        total = -2.0
        for case in range(graded, cases):
            case_rewards[program, case] = -0.5
        hash_a = mix_a(hash_a, _LIMIT_MARK)
        hash_b = mix_b(hash_b, _LIMIT_MARK)
    totals[program] = total / (4.0 * cases)
    passed[program] = solved
    statuses[program] = STEP_LIMIT if graded < cases else ENDED
    behaviours[program, 0] = hash_a
    behaviours[program, 1] = hash_b
