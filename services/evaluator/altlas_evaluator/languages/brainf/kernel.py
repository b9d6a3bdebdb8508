"""The interpreter of brainf as machine code: all programs of a batch on all cases in one call, without the GIL.

Importing this needs numba; nothing is compiled before the first call. docs/brainf.md has the semantics and the reward.
Invariants: a run takes at most `max_steps` steps and a tape of as many cells; the tape is all 0 between runs; a program
that never read its input is run once, since any other input would have given the same.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled

ByteArray: TypeAlias = "npt.NDArray[np.uint8]"
IntArray: TypeAlias = "npt.NDArray[np.int64]"

ENDED = 0
STEP_LIMIT = 1
SYNTAX_ERROR = 2

_RIGHT, _LEFT, _MORE, _LESS, _OPEN, _CLOSE, _WRITE, _READ, _SKIP = range(9)
_OPEN_MORE, _OPEN_LESS = 9, 10  # the bracket of [+] or [-], whose turns need not be taken one by one
_OPS = "><+-[].,"
_OP_OF = np.full(256, _SKIP, dtype=np.uint8)
_OP_OF[np.frombuffer(_OPS.encode(), dtype=np.uint8)] = np.arange(len(_OPS), dtype=np.uint8)

# Odd constants with bits all over: those of xxHash64 and SplitMix64.
_SEED_A, _SEED_B = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_A, _PRIME_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_A, _SHIFT_B = np.uint64(29), np.uint64(31)
_LIMIT_MARK = np.uint64(0xD6E8FEB86659FD93)  # in place of a hash of outputs
_LONGEST = 100  # characters, of the length reward


@compiled
def _decode(source: ByteArray, ops: ByteArray, jumps: IntArray, opened: IntArray, folds: bool) -> bool:
    """Fill `ops` and, for brackets, `jumps`: to the match, to itself where there is none. Return whether all match.

    Where `folds`, the opening brackets of [+] and [-] are operations of their own.
    """
    depth = 0
    is_balanced = True
    for position in range(len(source)):
        op = _OP_OF[source[position]]
        ops[position] = op
        if op == _OPEN:
            opened[depth] = position
            depth += 1
        elif op == _CLOSE:
            if depth:
                depth -= 1
                match = opened[depth]
                jumps[position] = match
                jumps[match] = position
                if folds and position - match == 2:
                    if ops[match + 1] == _MORE:
                        ops[match] = _OPEN_MORE
                    elif ops[match + 1] == _LESS:
                        ops[match] = _OPEN_LESS
            else:
                jumps[position] = position
                is_balanced = False
    for level in range(depth):
        jumps[opened[level]] = opened[level]
    return is_balanced and depth == 0


@compiled
def _is_as_seen(tape: IntArray, last: int, seen: IntArray, seen_last: int, shift: int, lowest: int) -> bool:
    """Say whether the cells from `lowest` on, all that were visited since, were the same `shift` cells to the left.

    A cell beyond the last is 0. What moved right may not have touched the left end, which does not move along.
    """
    if shift > 0 and lowest < 0:
        return False
    for cell in range(max(lowest, 0), max(seen_last, last - shift) + 1):
        now = tape[cell + shift] if cell + shift <= last else 0
        if now != (seen[cell] if cell <= seen_last else 0):
            return False
    return True


@compiled
def _turns_to_zero(value: int, op: int, base: int) -> int:
    """Return how often [+] or [-] is run from a value that is not 0; at least so often where that is past int64."""
    if op == _OPEN_LESS:
        return value if value > 0 else base
    if value < 0:
        return -max(value, -(1 << 62))
    return base - value if value < base else 1


@compiled
def _run(
    ops: ByteArray,
    jumps: IntArray,
    length: int,
    inputs: IntArray,
    base: int,
    max_steps: int,
    tape: IntArray,
    outputs: IntArray,
    seen: IntArray,
    start: IntArray,
    start_tape: IntArray,
) -> tuple[bool, int, int, int, bool]:
    """Return whether it ended, its steps, the number of outputs, the last cell it reached, and whether it read.

    It begins in the state `start`, int64 [5]: position, pointer, last cell, steps and number of outputs. A run from the
    very beginning leaves there, and in `start_tape` where that is not empty, the state in which it first reads: up to
    then, others do the same whatever their inputs.

    Where `seen` is as long as the tape, a run that comes back to a state it was in, or to the same some cells to the
    right, is at its limit there and then, with steps and outputs as they are: it would go on like that for ever. States
    are compared where a loop begins anew, each with the one kept at the last power of two of such places (Brent 1980).
    """
    seen_ip = -1
    seen_pointer = seen_value = seen_read = seen_last = 0
    lowest = turns = 0
    next_kept = 1
    watches = len(seen) > 0
    ip, pointer, last, steps, written = start[0], start[1], start[2], start[3], start[4]
    read = 0
    value = tape[pointer]  # the current cell, kept out of the tape while the pointer stays
    is_reading = steps > 0
    while ip < length:
        op = ops[ip]
        if op == _RIGHT:
            tape[pointer] = value
            pointer += 1
            value = tape[pointer]
            last = max(last, pointer)
        elif op == _LEFT:
            tape[pointer] = value
            pointer -= 1
            lowest = min(lowest, pointer)
            pointer = max(pointer, 0)
            value = tape[pointer]
        elif op == _MORE:
            value = value + 1 if value < base - 1 else 0
        elif op == _LESS:
            value = value - 1 if value > 0 else base - 1
        elif op == _OPEN:
            if value == 0:
                ip = jumps[ip]
        elif op == _CLOSE:
            if value != 0:
                if watches:
                    tape[pointer] = value
                    turns += 1
                    if (
                        ip == seen_ip
                        and value == seen_value
                        and pointer >= seen_pointer
                        and read == seen_read
                        and _is_as_seen(tape, last, seen, seen_last, pointer - seen_pointer, lowest)
                    ):
                        return False, steps, written, last, is_reading
                    if turns == next_kept:
                        next_kept *= 2
                        seen_ip, seen_pointer, seen_value, seen_read, seen_last = ip, pointer, value, read, last
                        seen[: last + 1] = tape[: last + 1]
                        lowest = pointer
                ip = jumps[ip]
        elif op >= _OPEN_MORE:
            if value != 0:
                steps += 2 * min(_turns_to_zero(value, op, base), max_steps)
                value = 0
            ip = jumps[ip]
        elif op == _WRITE:
            outputs[written] = value
            written += 1
        elif op == _READ:
            if not is_reading:
                is_reading = True
                if len(start_tape):
                    start[0], start[1], start[2], start[3], start[4] = ip, pointer, last, steps, written
                    tape[pointer] = value
                    start_tape[: last + 1] = tape[: last + 1]
            if read < len(inputs):
                value = inputs[read]
                read += 1
            else:
                value = 0
        ip += 1
        steps += 1
        if steps >= max_steps:
            tape[pointer] = value
            return False, steps, written, last, is_reading
    tape[pointer] = value
    return True, steps, written, last, is_reading


@compiled
def _distance(outputs: IntArray, written: int, targets: IntArray, base: int) -> float:
    """Return the sum of |output - target| over what both have, and `base` for each that one has alone."""
    common = min(written, len(targets))
    distance = float(base) * (max(written, len(targets)) - common)
    for index in range(common):
        distance += abs(float(outputs[index]) - float(targets[index]))
    return distance


@compiled
def _is_equal(outputs: IntArray, written: int, targets: IntArray) -> bool:
    if written != len(targets):
        return False
    for index in range(written):  # noqa: SIM110  (numba)
        if outputs[index] != targets[index]:
            return False
    return True


@compiled
def _mix(state: np.uint64, value: np.uint64, prime: np.uint64, shift: np.uint64) -> np.uint64:
    state = (state ^ value) * prime
    return state ^ (state >> shift)


@compiled
def _hash_outputs(outputs: IntArray, written: int) -> tuple[np.uint64, np.uint64]:
    """Return two independent hashes of the outputs and their number."""
    hash_a = _mix(_SEED_A, np.uint64(written), _PRIME_A, _SHIFT_A)
    hash_b = _mix(_SEED_B, np.uint64(written), _PRIME_B, _SHIFT_B)
    for index in range(written):
        value = np.uint64(outputs[index])
        hash_a = _mix(hash_a, value, _PRIME_A, _SHIFT_A)
        hash_b = _mix(hash_b, value, _PRIME_B, _SHIFT_B)
    return hash_a, hash_b


@compiled
def score_programs(
    sources: ByteArray,
    source_ends: IntArray,
    inputs: IntArray,
    input_ends: IntArray,
    targets: IntArray,
    target_ends: IntArray,
    base: int,
    max_steps: int,
    rewards_length: bool,
    totals: npt.NDArray[np.float64],
    passed: IntArray,
    statuses: ByteArray,
    behaviours: npt.NDArray[np.uint64],
    case_rewards: npt.NDArray[np.float32],
) -> None:
    """Run B programs on C cases and grade them, filling the last five arguments.

    Args:
        sources: uint8, the programs end to end; the ends of each are int64 [B].
        source_ends: see `sources`.
        inputs: int64, those of the cases end to end, with ends int64 [C]; so the targets.
        input_ends: see `inputs`.
        targets: see `inputs`.
        target_ends: see `inputs`.
        base: cells wrap there.
        max_steps: of one run.
        rewards_length: whether an exact case's part for length is 1 - length / 100 rather than 1.
        totals: float64 [B], the rewards.
        passed: int64 [B], exact cases.
        statuses: uint8 [B], ENDED or STEP_LIMIT.
        behaviours: uint64 [B, 2], over the outputs of all cases; a case that hit the limit has none.
        case_rewards: float32 [B, C], each case's share as if it were the only one.
    """
    longest = 0
    begin = 0
    for end in source_ends:
        longest = max(longest, end - begin)
        begin = end
    ops = np.empty(longest, np.uint8)
    jumps = np.empty(longest, np.int64)
    opened = np.empty(longest, np.int64)
    tape = np.zeros(max_steps + 1, np.int64)
    seen = np.empty(max_steps + 1, np.int64)
    start = np.zeros(5, np.int64)
    start_tape = np.empty(max_steps + 1, np.int64)
    outputs = np.empty(max_steps, np.int64)
    cases = len(input_ends)
    begin = 0
    for program in range(len(source_ends)):
        source = sources[begin : source_ends[program]]
        begin = source_ends[program]
        _decode(source, ops, jumps, opened, True)
        exact_bonus = 2.0 + (min(max(1.0 - len(source) / _LONGEST, 0.0), 1.0) if rewards_length else 1.0)
        total = 0.0
        exact = 0
        status = ENDED
        hash_a, hash_b = _SEED_A, _SEED_B
        input_begin = 0
        target_begin = 0
        must_run = True
        written = 0
        start[:] = 0
        start_tape[0] = 0
        case_a, case_b = _SEED_A, _SEED_B
        for case in range(cases):
            if must_run:
                tape[: start[2] + 1] = start_tape[: start[2] + 1]
                has_ended, _, written, last, must_run = _run(
                    ops,
                    jumps,
                    len(source),
                    inputs[input_begin : input_ends[case]],
                    base,
                    max_steps,
                    tape,
                    outputs,
                    seen,
                    start,
                    start_tape,
                )
                tape[: last + 1] = 0
                if not has_ended:
                    status = STEP_LIMIT
                    total = -2.0
                    case_rewards[program, case:] = -0.5
                    hash_a = _mix(hash_a, _LIMIT_MARK, _PRIME_A, _SHIFT_A)
                    hash_b = _mix(hash_b, _LIMIT_MARK, _PRIME_B, _SHIFT_B)
                    break
                case_a, case_b = _hash_outputs(outputs, written)
            target = targets[target_begin : target_ends[case]]
            reward = 1.0 - _distance(outputs, written, target, base) / (float(base) * max(1, len(target)))
            if _is_equal(outputs, written, target):
                reward += exact_bonus
                exact += 1
            total += reward
            case_rewards[program, case] = reward / 4.0
            hash_a = _mix(hash_a, case_a, _PRIME_A, _SHIFT_A)
            hash_b = _mix(hash_b, case_b, _PRIME_B, _SHIFT_B)
            input_begin = input_ends[case]
            target_begin = target_ends[case]
        totals[program] = total / (4.0 * cases)
        passed[program] = exact
        statuses[program] = status
        behaviours[program, 0] = hash_a
        behaviours[program, 1] = hash_b


@compiled
def run_program(
    source: ByteArray,
    inputs: IntArray,
    base: int,
    max_steps: int,
    requires_balance: bool,
    tape: IntArray,
    outputs: IntArray,
) -> tuple[int, int, int, int]:
    """Run one program once; return how it ended, its steps, the number of outputs and of cells.

    Args:
        source: uint8, one character each.
        inputs: int64.
        base: cells wrap there.
        max_steps: at which it fails.
        requires_balance: whether an unmatched bracket is a syntax error.
        tape: int64 [at least the larger of 1 and the cells set, and max_steps], the cells before and afterwards.
        outputs: int64 [max_steps], filled.
    """
    ops = np.empty(len(source), np.uint8)
    jumps = np.empty(len(source), np.int64)
    if not _decode(source, ops, jumps, np.empty(len(source), np.int64), False) and requires_balance:
        return SYNTAX_ERROR, 0, 0, 0
    none = jumps[:0]
    start = np.zeros(5, np.int64)
    has_ended, steps, written, last, _ = _run(
        ops, jumps, len(source), inputs, base, max_steps, tape, outputs, none, start, none
    )
    return ENDED if has_ended else STEP_LIMIT, steps, written, last + 1
