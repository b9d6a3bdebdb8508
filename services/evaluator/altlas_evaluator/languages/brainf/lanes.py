"""The cases of a brainf program in lockstep, a lane each: an operation is looked up once and done for all of them.

Importing this needs numba; nothing is compiled before the first call. Invariants: where lanes differ at a bracket, some
wait at its match until the others come there, and each ends in the state that it would be in alone; no later than after
`_MOST_TAKEN` operations lanes are stopped as they are, to go on one by one, which bounds the wait and the state.

Indices that cannot be negative are uint64 where it counts: numba looks at the sign of others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled_inside
from altlas_evaluator.languages.brainf.decoding import (
    CLOSE,
    END,
    LEFT,
    LESS,
    MORE,
    OPEN,
    OPEN_MORE,
    READ,
    WRITE,
    ByteArray,
    IntArray,
    turns_to_zero,
)
from altlas_evaluator.languages.brainf.grading import SEED_A, SEED_B, mix_a, mix_b

LANES = 16
_MOST_STARTED = 1024  # cells and outputs at the start, and operations of the program
_MOST_TAKEN = 4096
MOST_OUTPUTS = 2 * _MOST_STARTED + _MOST_TAKEN

# The rows of the state, int64 [STATE_ROWS, LANES]: who is on (-1, all bits, or 0), where each is, and its tape.
_ON, _IP, _POINTER, _UNREAD, _INPUT_END, _WRITTEN, STEPS, _VALUE, _TAPE = range(9)
STATE_ROWS = _TAPE + MOST_OUTPUTS + 1


@compiled_inside
def can_start(count: int, length: int, start: IntArray) -> bool:
    """Say whether so many cases of a program can be run together from where it first reads, and are worth it."""
    return count > 2 and length <= _MOST_STARTED and start[2] < _MOST_STARTED and start[4] < _MOST_STARTED


@compiled_inside
def lay_out(targets: IntArray, target_ends: IntArray, laid: IntArray, sizes: IntArray) -> None:
    """Set the size of each case's target, and all but the first side by side, each LANES below the LANES before."""
    deepest = len(laid) * LANES // max(1, len(sizes) - 1)
    begin = 0
    for case in range(len(target_ends)):
        sizes[case] = target_ends[case] - begin
        if case > 0:
            group, lane = (case - 1) // LANES, (case - 1) % LANES
            for index in range(sizes[case]):
                laid[group * deepest + index, lane] = targets[begin + index]
        begin = target_ends[case]


@compiled_inside
def _width(lanes: IntArray) -> int:
    """Return the number of lanes, as a multiple that the compiler sees, so that it makes no code for what is over."""
    return int(lanes.shape[1] & -LANES)


@compiled_inside
def _blend(mask: int, new: int, old: int) -> int:
    """Return `new` where the mask is -1, `old` where it is 0.

    So there is no store of some lanes only, which the processor would not forward to the next load.
    """
    return old ^ ((old ^ new) & mask)


@compiled_inside
def start_lanes(
    lanes: IntArray,
    outputs: IntArray,
    case: int,
    count: int,
    input_ends: IntArray,
    start: IntArray,
    start_tape: IntArray,
    start_outputs: IntArray,
) -> None:
    """Put so many cases from `case` on into the state in which their program first reads."""
    width = _width(lanes)
    for lane in range(width):
        lanes[_ON, lane] = -1 if lane < count else 0
        lanes[_IP, lane] = start[0]
        lanes[_POINTER, lane] = start[1]
        lanes[STEPS, lane] = start[3]
        lanes[_WRITTEN, lane] = start[4]
        lanes[_UNREAD, lane] = lanes[_INPUT_END, lane] = 0
    for lane in range(count):
        lanes[_UNREAD, lane] = input_ends[case + lane - 1]
        lanes[_INPUT_END, lane] = input_ends[case + lane]
    for cell in range(start[2] + 1):
        for lane in range(width):
            lanes[np.uint64(_TAPE + cell), lane] = start_tape[cell]
    for lane in range(width):
        lanes[_TAPE + start[2] + 1, lane] = 0
    for index in range(start[4]):
        for lane in range(width):
            outputs[index, lane] = start_outputs[index]


@compiled_inside
def _move_apart(lanes: IntArray, step: int) -> int:
    """Move lanes that are on, each from where it is. Return the last cell that one came to."""
    furthest = 0
    for lane in range(_width(lanes)):
        cell = lanes[_POINTER, lane]
        lanes[np.uint64(_TAPE + cell), lane] = lanes[_VALUE, lane]
        cell = max(cell + (step & lanes[_ON, lane]), 0)
        lanes[_POINTER, lane] = cell
        lanes[_VALUE, lane] = lanes[np.uint64(_TAPE + cell), lane]
        furthest = max(furthest, cell)
    return furthest


@compiled_inside
def _write_apart(lanes: IntArray, row: int, outputs: IntArray) -> None:
    """Append the values of lanes that are on to the outputs of each."""
    for lane in range(_width(lanes)):
        index = lanes[_WRITTEN, lane]
        outputs[np.uint64(index), lane] = lanes[row, lane]
        lanes[_WRITTEN, lane] = index - lanes[_ON, lane]


@compiled_inside
def _read(lanes: IntArray, row: int, inputs: IntArray) -> None:
    for lane in range(_width(lanes)):
        unread, on = lanes[_UNREAD, lane], lanes[_ON, lane]
        value = inputs[np.uint64(unread)] if unread < lanes[_INPUT_END, lane] else 0
        lanes[row, lane] = _blend(on, value, lanes[row, lane])
        lanes[_UNREAD, lane] = unread - on


@compiled_inside
def _count_to_zero(lanes: IntArray, row: int, op: int, base: int, max_steps: int) -> None:
    """Do [+] or [-], which may take lanes different numbers of steps."""
    for lane in range(_width(lanes)):
        value = lanes[row, lane] & lanes[_ON, lane]
        if value != 0:
            lanes[STEPS, lane] += 2 * min(turns_to_zero(value, op, base), max_steps)
        lanes[row, lane] ^= value


@compiled_inside
def _find_non_zero(lanes: IntArray, row: int) -> int:
    """Return the lanes whose value is not 0, as bits."""
    found = 0
    for lane in range(_width(lanes)):
        found |= (1 << lane) if lanes[row, lane] != 0 else 0
    return found


@compiled_inside
def _note(lanes: IntArray, row: int, value: int) -> None:
    """Set what lanes that are on have in a row."""
    for lane in range(_width(lanes)):
        lanes[row, lane] = _blend(lanes[_ON, lane], value, lanes[row, lane])


@compiled_inside
def _switch(lanes: IntArray, going: int) -> None:
    """Turn on the lanes that `going` has as bits, and off the others."""
    for lane in range(_width(lanes)):
        lanes[_ON, lane] = -((going >> lane) & 1)


@compiled_inside
def _differ(lanes: IntArray, row: int, value: int) -> bool:
    """Say whether a lane that is on has another value in a row."""
    differing = 0
    for lane in range(_width(lanes)):
        differing |= (lanes[row, lane] ^ value) & lanes[_ON, lane]
    return differing != 0


@compiled_inside
def run_lanes(
    ops: ByteArray,
    jumps: IntArray,
    length: int,
    inputs: IntArray,
    base: int,
    max_steps: int,
    lanes: IntArray,
    outputs: IntArray,
    held: IntArray,
    count: int,
    own_steps: int,
    start: IntArray,
) -> tuple[bool, int]:
    """Run lanes to the end, or as far as they may go. Return whether they ended, and the last cell that one reached.

    A lane whose steps are `max_steps` or more has hit the limit. While the lanes that are on have one pointer, their
    values are in its row of the tape, and to move is to take another row; from when they have not, values are in
    `_VALUE` while pointers stay. Outputs go into one row of `outputs` while lanes that are on have written as many.

    Args:
        ops: as `decode` leaves them; so `jumps`.
        jumps: see `ops`.
        length: of the program.
        inputs: of all cases, end to end.
        base: cells wrap there.
        max_steps: of one run.
        lanes: int64 [STATE_ROWS, LANES], as `start_lanes` leaves it.
        outputs: int64 [MOST_OUTPUTS, LANES].
        held: int64 [at least the length], room to work: the lanes that came to a loop, as bits.
        count: of lanes.
        own_steps: that a case took from the start on; lanes may take about twice as many operations together.
        start: the state in which the program first reads.
    """
    width = _width(lanes)
    ip, pointer, last, written = start[0], start[1], start[2], start[4]
    active = (1 << count) - 1
    for position in range(length):
        held[position] = active  # of loops in which the program first reads
    row = _TAPE + pointer
    moves_together = writes_together = True
    taken = noted = 0
    most = min(64 + 2 * own_steps, _MOST_TAKEN)  # one that is far slower is better run alone: it may never end
    while active:
        op = ops[np.uint64(ip)]
        if op <= LEFT:
            step = 1 - 2 * int(op)
            if moves_together:
                pointer = max(pointer + step, 0)
                row = _TAPE + pointer
                furthest = pointer
            else:
                furthest = _move_apart(lanes, step)
            if furthest > last:
                last = furthest
                for lane in range(width):
                    lanes[_TAPE + last + 1, lane] = 0
        elif op == MORE:
            for lane in range(width):
                value = lanes[row, lane]
                lanes[row, lane] = _blend(lanes[_ON, lane], value + 1 if value < base - 1 else 0, value)
        elif op == LESS:
            for lane in range(width):
                value = lanes[row, lane]
                lanes[row, lane] = _blend(lanes[_ON, lane], value - 1 if value > 0 else base - 1, value)
        elif op <= END:
            going = active
            wait = ip + 1
            if op == END or taken >= most:
                going = 0
                wait = ip
                ip -= 1
                taken -= 1
            else:
                non_zero = _find_non_zero(lanes, row) & active
                if op == OPEN and non_zero:
                    held[ip] = active
                    going = non_zero
                    wait = jumps[ip] + 1
                elif op == CLOSE and not non_zero:
                    going = held[jumps[ip]]
                else:
                    going = non_zero if non_zero else active
                    ip = jumps[ip]
            if going != active:
                for lane in range(width):
                    lanes[STEPS, lane] += (taken + 1 - noted) & lanes[_ON, lane]
                noted = taken + 1
                _note(lanes, _IP, wait)
                if moves_together:
                    _note(lanes, _POINTER, pointer)
                if writes_together:
                    _note(lanes, _WRITTEN, written)
                _switch(lanes, going)
                active = going
                writes_together = writes_together and not _differ(lanes, _WRITTEN, written)
                if moves_together and _differ(lanes, _POINTER, pointer):
                    moves_together = False
                    row = _VALUE
                    for lane in range(width):
                        lanes[_VALUE, lane] = lanes[_TAPE + lanes[_POINTER, lane], lane]
        elif op >= OPEN_MORE:
            _count_to_zero(lanes, row, op, base, max_steps)
            ip = jumps[ip]
        elif op == READ:
            _read(lanes, row, inputs)
        elif op == WRITE and writes_together:
            for lane in range(width):
                outputs[written, lane] = lanes[row, lane]  # lanes that wait have no more than `written`
            written += 1
        elif op == WRITE:
            _write_apart(lanes, row, outputs)
        ip += 1
        taken += 1
    if not moves_together:
        for lane in range(width):
            lanes[_TAPE + lanes[_POINTER, lane], lane] = lanes[_VALUE, lane]
    return ip >= length, last


@compiled_inside
def take_lane(
    lanes: IntArray,
    outputs: IntArray,
    lane: int,
    last: int,
    state: IntArray,
    tape: IntArray,
    case_outputs: IntArray,
) -> None:
    """Copy a lane's state, tape and outputs to where it is run alone; `last` is the last cell that any lane reached."""
    steps, written = lanes[STEPS, lane], lanes[_WRITTEN, lane]
    reached = min(last, steps)
    state[0], state[1], state[2] = lanes[_IP, lane], lanes[_POINTER, lane], reached
    state[3], state[4], state[5] = steps, written, lanes[_UNREAD, lane]
    for cell in range(reached + 1):
        tape[cell] = lanes[np.uint64(_TAPE + cell), lane]
    for index in range(written):
        case_outputs[index] = outputs[index, lane]


@compiled_inside
def take_start(
    start: IntArray, start_tape: IntArray, input_ends: IntArray, case: int, state: IntArray, tape: IntArray
) -> None:
    """As `take_lane`, from where the program first reads, for any case but the first."""
    for index in range(5):
        state[index] = start[index]
    state[5] = input_ends[case - 1]
    for cell in range(start[2] + 1):
        tape[cell] = start_tape[cell]


@compiled_inside
def grade_lanes(
    lanes: IntArray,
    outputs: IntArray,
    targets: IntArray,
    sizes: IntArray,
    base: int,
    exact_bonus: float,
    case: int,
    rewards: npt.NDArray[np.float64],
    exact: IntArray,
    hashes: npt.NDArray[np.uint64],
) -> None:
    """Hash and grade lanes as `hash_case` and `grade_case` do, to the last bit, into what cases from `case` on have."""
    width = _width(lanes)
    deepest = len(targets) * LANES // (len(sizes) - 1)
    first_row = (case - 1) // LANES * deepest
    longest = 0
    for lane in range(width):
        written, size = lanes[_WRITTEN, lane], sizes[case + lane]
        longest = max(longest, written)
        rewards[case + lane] = float(base) * (max(written, size) - min(written, size))
        exact[case + lane] = written ^ size
    for lane in range(width):
        written = np.uint64(lanes[_WRITTEN, lane])
        hashes[0, case + lane] = mix_a(SEED_A, written)
        hashes[1, case + lane] = mix_b(SEED_B, written)
    for index in range(longest):
        for lane in range(width):
            value = np.uint64(outputs[index, lane])
            hash_a, hash_b = hashes[0, case + lane], hashes[1, case + lane]
            has = index < lanes[_WRITTEN, lane]
            hashes[0, case + lane] = mix_a(hash_a, value) if has else hash_a
            hashes[1, case + lane] = mix_b(hash_b, value) if has else hash_b
    for index in range(min(longest, deepest)):
        for lane in range(width):
            output, target = outputs[index, lane], targets[first_row + index, lane]
            has = index < min(lanes[_WRITTEN, lane], sizes[case + lane])
            rewards[case + lane] += abs(float(output) - float(target)) if has else 0.0
            exact[case + lane] |= output ^ target if has else 0
    for lane in range(width):
        reward = 1.0 - np.divide(rewards[case + lane], float(base) * max(1, sizes[case + lane]))
        is_exact = exact[case + lane] == 0
        rewards[case + lane] = reward + exact_bonus if is_exact else reward
        exact[case + lane] = is_exact
