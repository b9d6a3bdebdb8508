"""Finds out what confines programs here by doing it: a launcher of each tier is started and made to run a canary.

Fails closed: where neither tier holds, `choose_tier` refuses, unless unsafe running is allowed in so many words.
"""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass, field

from altlas.core.program import Limits, Program
from altlas.errors import SandboxError
from altlas_evaluator.sandbox.supervisor import Slot, Tier

LOGGER = logging.getLogger(__name__)
TIERS: tuple[Tier, ...] = ("namespaces", "landlock")  # the strongest first

CANARY_OUTPUT = b"confined\n"
CANARY = Program(
    source=b"""
import ctypes, os
def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return True
    return False
libc = ctypes.CDLL(None)
held = (
    refused(open, "/etc/passwd")
    and refused(open, "altlas-canary", "w")
    and refused(os.listdir, "/")
    and refused(os.fork)
    and refused(os.execv, "/bin/true", ["true"])
    and libc.socket(2, 1, 0) < 0
    and os.environ == {}
)
print("confined" if held else "loose")
"""
)
CANARY_LIMITS = Limits(cpu_s=5.0, wall_s=20.0)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one tier: its layers in words, or why it does not hold."""

    tier: Tier
    works: bool
    layers: dict[str, str] = field(default_factory=dict)
    reason: str = ""


def _try(tier: Tier) -> Finding:
    slot = Slot(tier=tier)
    try:
        slot.start()
        layers = slot.layers
        execution = slot.run(CANARY, CANARY_LIMITS)
    except (SandboxError, OSError) as error:
        return Finding(tier, False, reason=str(error))
    finally:
        slot.retire()
    if execution.stdout != CANARY_OUTPUT:
        reason = f"the canary came back {execution.status}: {(execution.stdout + execution.stderr).decode()[-500:]!r}"
        return Finding(tier, False, layers, f"sandbox tier {tier}: {reason}")
    return Finding(tier, True, layers)


def probe(tier: Tier) -> Finding:
    """Start a throw-away launcher of this tier, run the canary in it, and say what came of it."""
    findings: list[Finding] = []
    # In a thread that ends with the launcher, since a launcher dies with the thread that started it.
    thread = threading.Thread(target=lambda: findings.append(_try(tier)), name=f"probe-{tier}")
    thread.start()
    thread.join()
    return findings[0]


def choose_tier(requested: str, *, allow_unsafe: bool) -> Tier:
    """Return the tier to use: the requested one, or for "auto" the strongest that works here.

    Raises:
        SandboxError: it does not work here and allow_unsafe is not set; the message says why for each tier tried.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"programs run only on Linux, not on {sys.platform}; use the evaluator's container")
    reasons = []
    for tier in TIERS:
        if requested in ("auto", tier):
            finding = probe(tier)
            if finding.works:
                return tier
            reasons.append(finding.reason)
    message = "; ".join(reasons)
    if allow_unsafe:
        LOGGER.critical("UNSAFE: programs run without a sandbox, as sandbox.allow_unsafe demands; %s", message)
        return "unsafe"
    raise SandboxError(
        f"{message}. Programs are not run unprotected: allow Landlock (and user namespaces for the stronger tier) on "
        "this machine, or, on a machine you do not value, set sandbox.allow_unsafe = true"
    )
