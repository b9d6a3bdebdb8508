"""The interpreter of brainf as machine code: all programs of a batch on all cases in one call, without the GIL.

Importing this needs numba; nothing is compiled before the first call. docs/brainf.md has the semantics and the reward.
Invariants: a run takes at most `max_steps` steps and a tape of as many cells; the tape is all 0 between runs; a program
that never read its input is run once, since any other input would have given the same. The first case is run alone, and
the others only if it ended: most programs that never end show it there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled, compiled_inside
from altlas_evaluator.languages.brainf.decoding import (
    CLOSE,
    LEFT,
    LESS,
    MORE,
    OPEN,
    OPEN_MORE,
    READ,
    RIGHT,
    WRITE,
    ByteArray,
    IntArray,
    decode,
    turns_to_zero,
)
from altlas_evaluator.languages.brainf.grading import ENDED, STEP_LIMIT, grade_case, hash_case, sum_up
from altlas_evaluator.languages.brainf.lanes import (
    LANES,
    MOST_OUTPUTS,
    STATE_ROWS,
    STEPS,
    can_start,
    grade_lanes,
    lay_out,
    run_lanes,
    start_lanes,
    take_lane,
    take_start,
)

SYNTAX_ERROR = 2
_LONGEST = 100  # characters, of the length reward


@compiled_inside
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


@compiled_inside
def _run(
    ops: ByteArray,
    jumps: IntArray,
    length: int,
    inputs: IntArray,
    input_end: int,
    base: int,
    max_steps: int,
    tape: IntArray,
    outputs: IntArray,
    seen: IntArray,
    state: IntArray,
    start: IntArray,
    start_tape: IntArray,
) -> tuple[bool, int, int, int, bool]:
    """Return whether it ended, its steps, the number of outputs, the last cell it reached, and whether it read.

    It begins in `state`, int64 [6]: position, pointer, last cell, steps, number of outputs and next input. A run
    that has taken no step leaves in `start`, and in `start_tape` where that is not empty, the state in which it first
    reads: up to then, others do the same whatever their inputs.

    Where `seen` is as long as the tape, a run that comes back to a state it was in, or to the same some cells to the
    right, is at its limit there and then, with steps and outputs as they are: it would go on like that for ever. States
    are compared where a loop begins anew, each with the one kept at the last power of two of such places (Brent 1980).
    """
    seen_ip = -1
    seen_pointer = seen_value = seen_unread = seen_last = 0
    lowest = turns = 0
    next_kept = 1
    watches = len(seen) > 0
    ip, pointer, last, steps, written, unread = state[0], state[1], state[2], state[3], state[4], state[5]
    value = tape[np.uint64(pointer)]  # the current cell, kept out of the tape while the pointer stays
    is_reading = steps > 0
    is_endless = False
    is_running = ip < length
    while is_running:
        op = ops[np.uint64(ip)]
        if op == RIGHT:
            tape[np.uint64(pointer)] = value
            pointer += 1
            value = tape[np.uint64(pointer)]
            last = max(last, pointer)
        elif op == LEFT:
            tape[np.uint64(pointer)] = value
            pointer -= 1
            lowest = min(lowest, pointer)
            pointer = max(pointer, 0)
            value = tape[np.uint64(pointer)]
        elif op == MORE:
            value = value + 1 if value < base - 1 else 0
        elif op == LESS:
            value = value - 1 if value > 0 else base - 1
        elif op == OPEN:
            if value == 0:
                ip = jumps[np.uint64(ip)]
        elif op == CLOSE:
            if value != 0:
                if watches:
                    tape[np.uint64(pointer)] = value
                    turns += 1
                    if (
                        ip == seen_ip
                        and value == seen_value
                        and pointer >= seen_pointer
                        and unread == seen_unread
                        and _is_as_seen(tape, last, seen, seen_last, pointer - seen_pointer, lowest)
                    ):
                        is_endless = True
                    if turns == next_kept:
                        next_kept *= 2
                        seen_ip, seen_pointer, seen_value, seen_unread, seen_last = ip, pointer, value, unread, last
                        for cell in range(last + 1):
                            seen[cell] = tape[cell]
                        lowest = pointer
                ip = jumps[np.uint64(ip)]
        elif op >= OPEN_MORE:
            if value != 0:
                steps += 2 * min(turns_to_zero(value, op, base), max_steps)
                value = 0
            ip = jumps[np.uint64(ip)]
        elif op == WRITE:
            outputs[np.uint64(written)] = value
            written += 1
        elif op == READ:
            if not is_reading:
                is_reading = True
                if len(start_tape):
                    start[0], start[1], start[2], start[3], start[4] = ip, pointer, last, steps, written
                    tape[np.uint64(pointer)] = value
                    for cell in range(last + 1):
                        start_tape[cell] = tape[cell]
            if unread < input_end:
                value = inputs[np.uint64(unread)]
                unread += 1
            else:
                value = 0
        ip += 1
        steps += 1
        is_running = ip < length and steps < max_steps and not is_endless
    tape[np.uint64(pointer)] = value
    return ip >= length and steps < max_steps, steps, written, last, is_reading


@compiled_inside
def _run_case(
    ops: ByteArray,
    jumps: IntArray,
    length: int,
    inputs: IntArray,
    input_end: int,
    base: int,
    max_steps: int,
    tape: IntArray,
    outputs: IntArray,
    seen: IntArray,
    state: IntArray,
    start: IntArray,
    start_tape: IntArray,
    case: int,
    hashes: npt.NDArray[np.uint64],
) -> tuple[bool, int, int, bool]:
    """Run a case to its end and hash what it wrote. Return whether it ended, its steps and outputs, whether it read."""
    has_ended, steps, written, last, has_read = _run(
        ops, jumps, length, inputs, input_end, base, max_steps, tape, outputs, seen, state, start, start_tape
    )
    for cell in range(last + 1):
        tape[cell] = 0
    if has_ended:
        hash_case(outputs, written, case, hashes)
    return has_ended, steps, written, has_read


@compiled
def score_all(
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
    ops: ByteArray,
    places: IntArray,
    tapes: IntArray,
    states: IntArray,
    lanes: IntArray,
    lane_outputs: IntArray,
    lane_targets: IntArray,
    sizes: IntArray,
    rewards: npt.NDArray[np.float64],
    exact: IntArray,
    hashes: npt.NDArray[np.uint64],
) -> None:
    """Do the work of `score_programs`, which makes the room for it: all from `ops` on."""
    jumps, opened = places[0], places[1]
    tape, start_tape, seen, outputs = tapes[0], tapes[1], tapes[2], tapes[3]
    origin, start, state = states[0], states[1], states[2]
    cases = len(input_ends)
    lay_out(targets, target_ends, lane_targets, sizes)
    begin = 0
    for program in range(len(source_ends)):
        end = source_ends[program]
        length = end - begin
        decode(sources, begin, end, ops, jumps, opened, True)
        begin = end
        exact_bonus = 2.0 + (min(max(1.0 - length / _LONGEST, 0.0), 1.0) if rewards_length else 1.0)
        graded = 0
        has_ended, steps, written, has_read = _run_case(
            ops,
            jumps,
            length,
            inputs,
            input_ends[0],
            base,
            max_steps,
            tape,
            outputs,
            seen,
            origin,
            start,
            start_tape,
            graded,
            hashes,
        )
        while has_ended and graded < (1 if has_read else cases):
            hashes[0, graded], hashes[1, graded] = hashes[0, 0], hashes[1, 0]
            grade_case(outputs, written, targets, target_ends, base, exact_bonus, graded, rewards, exact)
            graded += 1
        own_steps = steps - start[3]
        while has_ended and graded < cases:
            count = min(cases - graded, LANES)
            in_lanes = can_start(count, length, start)
            are_graded = False
            if in_lanes:
                start_lanes(lanes, lane_outputs, graded, count, input_ends, start, start_tape, outputs)
                are_graded, last = run_lanes(
                    ops, jumps, length, inputs, base, max_steps, lanes, lane_outputs, opened, count, own_steps, start
                )
            if are_graded:
                grade_lanes(lanes, lane_outputs, lane_targets, sizes, base, exact_bonus, graded, rewards, exact, hashes)
            for lane in range(count):
                has_ended = not in_lanes or lanes[STEPS, lane] < max_steps
                if has_ended and not are_graded:
                    if in_lanes:
                        take_lane(lanes, lane_outputs, lane, last, state, tape, outputs)
                    else:
                        take_start(start, start_tape, input_ends, graded, state, tape)
                    has_ended, _, written, _ = _run_case(
                        ops,
                        jumps,
                        length,
                        inputs,
                        input_ends[graded],
                        base,
                        max_steps,
                        tape,
                        outputs,
                        seen,
                        state,
                        start,
                        start_tape,
                        graded,
                        hashes,
                    )
                    grade_case(outputs, written, targets, target_ends, base, exact_bonus, graded, rewards, exact)
                if not has_ended:
                    break
                graded += 1
        sum_up(program, graded, rewards, exact, hashes, totals, passed, statuses, behaviours, case_rewards)


def _find_largest(ends: IntArray) -> int:
    return int(max(ends[0], np.diff(ends).max(initial=0)))


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
    longest, deepest = _find_largest(source_ends), _find_largest(target_ends)
    groups = -(-(len(input_ends) - 1) // LANES)
    score_all(
        sources,
        source_ends,
        inputs,
        input_ends,
        targets,
        target_ends,
        base,
        max_steps,
        rewards_length,
        totals,
        passed,
        statuses,
        behaviours,
        case_rewards,
        np.empty(longest + 1, dtype=np.uint8),
        np.empty((2, longest), dtype=np.int64),
        np.zeros((4, max_steps + 1), dtype=np.int64),
        np.zeros((3, 6), dtype=np.int64),
        np.empty((STATE_ROWS, LANES), dtype=np.int64),
        np.empty((MOST_OUTPUTS, LANES), dtype=np.int64),
        np.zeros((groups * deepest, LANES), dtype=np.int64),
        np.zeros(1 + groups * LANES, dtype=np.int64),
        np.empty(1 + groups * LANES),
        np.empty(1 + groups * LANES, dtype=np.int64),
        np.empty((2, 1 + groups * LANES), dtype=np.uint64),
    )


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
    ops = np.empty(len(source) + 1, np.uint8)
    jumps = np.empty(len(source), np.int64)
    if not decode(source, 0, len(source), ops, jumps, np.empty(len(source), np.int64), False) and requires_balance:
        return SYNTAX_ERROR, 0, 0, 0
    none = jumps[:0]
    start = np.zeros(6, np.int64)
    has_ended, steps, written, last, _ = _run(
        ops, jumps, len(source), inputs, len(inputs), base, max_steps, tape, outputs, none, start, start, none
    )
    return ENDED if has_ended else STEP_LIMIT, steps, written, last + 1
