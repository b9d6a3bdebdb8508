"""Every hyper-parameter, one field each, by the sections of config.ini. A field's description is its documentation:
config.ini's comments and docs/configuration.md are generated from it.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A section of config.ini: unknown keys are errors and values cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunSection(Section):
    """What a run is and when it stops."""

    seed: int = Field(1, ge=0, lt=2**63, description="Seed of every random stream of the run.")
    budget: int = Field(
        0, ge=0, description="Stop after this many sampled programs, duplicates included; 0 takes the task's own."
    )
    wall_clock_s: float = Field(0.0, ge=0, description="Stop after this many seconds; 0 means no limit.")
    stop_on_solved: bool = Field(True, description="Stop at the first verified program; false goes on to the budget.")
    stuck_after: int = Field(6_000, ge=0, description="Stuck: no better reward in this many programs; 0 never.")
    on_stuck: Literal["stop", "reinitialise"] = Field(
        "reinitialise", description="What to do when stuck: stop the run, or draw new weights and go on."
    )
    checkpoint_every: int = Field(50, ge=1, description="Updates between checkpoints; the last update always has one.")
    keep_last: int = Field(3, ge=1, description="Checkpoints kept; older ones are deleted.")
    evaluators: int = Field(2, ge=1, le=256, description="Evaluator processes that `altlas train` starts.")


class ModelSection(Section):
    """The policy network."""

    cell: Literal["lstm", "gru"] = Field("lstm", description="Recurrent cell.")
    embedding: int = Field(32, ge=1, le=4096, description="Width of a token's embedding.")
    hidden: int = Field(128, ge=1, le=8192, description="Width of the recurrent state.")
    layers: int = Field(1, ge=1, le=8, description="Recurrent layers.")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="auto takes cuda, then mps, then cpu; naming one that is not there is an error."
    )
    threads: int = Field(1, ge=1, le=256, description="CPU threads of torch; part of what makes a run repeatable.")


class SamplingSection(Section):
    """How programs are drawn from the policy."""

    batch_size: int = Field(256, ge=1, le=65_536, description="Programs sampled per update.")
    max_tokens: int = Field(
        0, ge=0, le=1024, description="Longest program in tokens, its <EOS> included; 0 takes the task's own."
    )
    temperature: float = Field(1.0, gt=0, le=100, description="Logits are divided by this before sampling.")
    grammar: Literal["language", "none"] = Field(
        "language", description="language: only tokens with which the program still parses; none: any token."
    )


class ObjectiveSection(Section):
    """What the update maximises."""

    name: Literal["reinforce", "risk_seeking"] = Field("reinforce", description="Policy gradient estimator.")
    baseline: Literal["none", "ema", "batch_mean", "leave_one_out"] = Field(
        "leave_one_out", description="Subtracted from the reward (reinforce only)."
    )
    ema_decay: float = Field(0.95, ge=0, lt=1, description="Decay of the ema baseline per update.")
    risk_quantile: float = Field(0.1, gt=0, le=1, description="Top fraction of the batch (risk_seeking only).")
    entropy_weight: float = Field(0.1, ge=0, le=10, description="Weight of the mean entropy per token, nats.")
    pqt_weight: float = Field(0.2, ge=0, le=1000, description="Weight of priority-queue training; 0 is off.")
    pqt_size: int = Field(10, ge=1, le=10_000, description="Programs in the priority queue, unique by behaviour.")
    novelty_weight: float = Field(
        0.0, ge=0, le=1, description="Bonus novelty_weight / sqrt(times this behaviour was seen); 0 is off."
    )


class OptimizerSection(Section):
    """How the weights move."""

    name: Literal["adam"] = Field("adam", description="Optimizer.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Step size.")
    gradient_clip: float = Field(1.0, gt=0, le=1e6, description="Largest global gradient norm.")


class RewardSection(Section):
    """How a program's outputs become a reward in [0, 1]. The four weights are divided by their sum."""

    syntax: float = Field(0.05, ge=0, le=1, description="Weight of: it compiles.")
    runs: float = Field(0.15, ge=0, le=1, description="Weight of: it ends by itself without an error.")
    similarity: float = Field(0.4, ge=0, le=1, description="Weight of: its output is close to the expected one.")
    exact: float = Field(0.4, ge=0, le=1, description="Weight of: its output is the expected one.")
    constant_cap: float = Field(
        0.3, ge=0, le=1, description="Highest reward of output that ignores the input where the expectation does not."
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.syntax + self.runs + self.similarity + self.exact == 0:
            raise ValueError("syntax, runs, similarity and exact are all 0; at least one must be above 0")
        return self


class SandboxSection(Section):
    """How untrusted programs are confined. The limits are ceilings: a task or request may ask for less."""

    tier: Literal["auto", "namespaces", "landlock"] = Field("auto", description="auto takes the strongest that works.")
    slots: int = Field(0, ge=0, le=1024, description="Programs run at once per evaluator; 0 means one per core.")
    cpu_s: float = Field(2.0, gt=0, le=3600, description="CPU seconds per program.")
    wall_s: float = Field(4.0, gt=0, le=3600, description="Wall seconds per program.")
    memory_bytes: int = Field(256 << 20, ge=16 << 20, le=1 << 40, description="Address space per program.")
    output_bytes: int = Field(1 << 20, ge=1, le=1 << 30, description="Bytes of stdout and of stderr per program.")
    open_files: int = Field(64, ge=8, le=1024, description="Open descriptors per program.")
    cases: Literal["isolated", "shared"] = Field(
        "isolated",
        description="A process for each of a task's cases, or one for all of a program's, which then see what those "
        "before them left behind.",
    )
    queue_programs: int = Field(20_000, ge=1, description="Programs that may wait for a slot; more are refused.")
    source_bytes: int = Field(1 << 20, ge=1, le=1 << 26, description="Longest source; longer ones are refused.")
    recycle_after: int = Field(10_000, ge=1, description="A launcher is replaced after this many programs.")
    allow_unsafe: bool = Field(False, description="Run programs where no sandbox works. Never on a machine you value.")


class TransportSection(Section):
    """Redis and the unit of work."""

    redis_url: str = Field("", description="redis:// or unix:// address; empty starts an embedded server.")
    shard_size: int = Field(32, ge=1, le=4096, description="Programs per job, fixed for a run.")
    lease_s: float = Field(15.0, ge=0.1, le=3600, description="A job not renewed for this long goes to another worker.")
    max_deliveries: int = Field(3, ge=1, le=100, description="Deliveries after which a job is dead and the run stops.")
    rpc_timeout_s: float = Field(120.0, gt=0, le=3600, description="Deadline of a call between roles.")


class PathsSection(Section):
    """Where things are."""

    runs: str = Field("runs", description="Directory that holds the run directories.")
    vocabulary: str = Field("", description="Vocabulary file; empty takes the one that ships with altlas.")


class LoggingSection(Section):
    """What is written about a run."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")
    format: Literal["text", "json"] = Field("text", description="text for people, json for machines.")
    attempts_sample: int = Field(
        100, ge=0, description="One in this many attempts goes to attempts.sqlite besides new bests; 0 for none."
    )


class Config(Section):
    """A whole resolved configuration."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    sampling: SamplingSection = SamplingSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    reward: RewardSection = RewardSection()
    sandbox: SandboxSection = SandboxSection()
    transport: TransportSection = TransportSection()
    paths: PathsSection = PathsSection()
    logging: LoggingSection = LoggingSection()
