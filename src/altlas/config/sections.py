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
        0,
        ge=0,
        description="Stop after this many sampled programs, duplicates included; 0 takes the task's own, of several "
        "their sum.",
    )
    wall_clock_s: float = Field(0.0, ge=0, description="Stop after this many seconds; 0 means no limit.")
    stop_on_solved: bool = Field(
        True, description="Stop at the first verified program, of every task; false goes on to the budget."
    )
    stuck_after: int = Field(10_000, ge=0, description="Stuck: no better reward in this many programs; 0 never.")
    on_stuck: Literal["stop", "reinitialise"] = Field(
        "reinitialise", description="What to do when stuck: stop the run, or draw new weights and go on."
    )
    checkpoint_every: int = Field(50, ge=1, description="Updates between checkpoints; the last update always has one.")
    mode: Literal["lockstep", "async"] = Field(
        "lockstep",
        description="lockstep: an update starts when the one before has ended, and the run repeats bit for bit; async: "
        "sampling, evaluation and learning overlap, and programs may be of a policy up to max_lag updates old.",
    )
    max_lag: int = Field(
        1,
        ge=0,
        le=64,
        description="Updates by which the policy that drew a batch may be behind the one that learns from it (async).",
    )
    keep_last: int = Field(3, ge=1, description="Newest checkpoints kept; older ones are deleted.")
    keep_best: int = Field(
        0, ge=0, description="Checkpoints kept besides, those whose last update had the best mean reward."
    )
    keep_every: int = Field(
        0, ge=0, description="Checkpoints kept besides, those at a multiple of this many updates; 0 none."
    )
    evaluators: int = Field(2, ge=1, le=256, description="Evaluator processes that `altlas train` starts.")
    generators: int = Field(1, ge=1, le=64, description="Generator processes that `altlas train` starts.")


class CurriculumSection(Section):
    """How a run of several tasks goes from one to another; a run of one task leaves it alone."""

    route: Literal["in_order", "round_robin", "learning_progress"] = Field(
        "in_order",
        description="in_order: a task until it is verified or its budget is spent, then the next; round_robin: an "
        "update of each in turn; learning_progress: drawn, more often where rewards change more.",
    )
    carry: Literal["policy_and_archive", "policy", "nothing"] = Field(
        "policy_and_archive",
        description="policy: one network learns every task; policy_and_archive: elites of the task before are varied "
        "for the first batch of the next too; nothing: new weights for each, as in runs of their own.",
    )
    task_budget: int = Field(
        0, ge=0, description="Programs of a task before in_order goes on to the next; 0 takes the task's own budget."
    )
    window: int = Field(5_000, ge=1, description="Newest programs of a task over which learning_progress measures it.")
    floor: float = Field(
        0.01, gt=0, le=1, description="Added to each task's change of reward, so that learning_progress forgets none."
    )


class AlgorithmSection(Section):
    """What proposes programs."""

    name: Literal["policy", "random", "ga", "ga_archive"] = Field(
        "policy",
        description="policy: the network, with what [proposals] adds; random: uniform tokens; ga: the genetic "
        "algorithm of [ga]; ga_archive: the same on the elites of [archive]. Only policy learns weights.",
    )


class ArchiveSection(Section):
    """The programs that a run keeps to propose others from."""

    size: int = Field(16, ge=1, le=10_000, description="Best programs by total reward, unique by behaviour.")
    per_case: int = Field(4, ge=0, le=1000, description="Elites kept for each of the task's cases besides; 0 is off.")


class ProposalsSection(Section):
    """What a batch holds besides programs that are drawn whole from the policy."""

    mutation: float = Field(0.9, ge=0, le=1, description="Share of a batch that is proposed by mutating elites.")
    infill: float = Field(
        0.0, ge=0, le=1, description="Share of a batch for which the policy draws a part of an elite anew."
    )
    edits: Literal["phrases", "tokens"] = Field(
        "phrases",
        description="What a mutation edits: phrases (expressions and lines) where programs are drawn under the grammar "
        "of a language that has them, else and with tokens: single tokens.",
    )
    learned_rules: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the grammar's rules for new phrases that are drawn by how often elites have them; of the "
        "rest each is as likely.",
    )
    crossover: float = Field(0.3, ge=0, le=1, description="Share of the mutations that first cross two elites.")
    mean_edits: float = Field(2.0, ge=1, le=8, description="Mean number of edits of a mutation without crossing.")
    infill_inserted: float = Field(2.0, ge=1, le=1000, description="Mean tokens that the policy draws for an infill.")
    infill_removed: float = Field(1.0, ge=0, le=1000, description="Mean tokens that they replace.")
    infill_temperature: float = Field(
        1.5, gt=0, le=100, description="Logits are divided by this, besides sampling.temperature, for an infill."
    )
    case_share: float = Field(
        0.5, ge=0, le=1, description="Share of parents that are drawn among the elites of one case, not of all."
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.mutation + self.infill > 1:
            raise ValueError(
                f"mutation ({self.mutation}) and infill ({self.infill}) are shares of the same batch, and their sum "
                "must be at most 1; lower one of them"
            )
        return self


class GaSection(Section):
    """The published genetic algorithm; a generation is sampling.batch_size programs, and two elites."""

    crossover: float = Field(0.95, ge=0, le=1, description="Probability that two parents are crossed.")
    mutation: float = Field(0.15, ge=0, le=1, description="Probability that a token of a child is changed.")


class ModelSection(Section):
    """The policy network."""

    cell: Literal["lstm", "gru"] = Field("lstm", description="Recurrent cell.")
    embedding: int = Field(32, ge=1, le=4096, description="Width of a token's embedding.")
    hidden: int = Field(128, ge=1, le=8192, description="Width of the recurrent state.")
    layers: int = Field(1, ge=1, le=8, description="Recurrent layers.")
    initialisation: Literal["uniform", "glorot"] = Field(
        "uniform",
        description="uniform: +-1/sqrt(hidden), embeddings +-sqrt(3), biases drawn too; glorot: variance scaling by "
        "the mean of fan-in and fan-out, embeddings +-1, biases 0 but the forget gate's, which are 1.",
    )
    init_factor: float = Field(1.0, gt=0, le=100, description="Glorot's variance is multiplied by this (glorot only).")
    output_bias: bool = Field(True, description="Whether the output layer has a bias.")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto",
        description="auto takes cuda, then mps, then cpu, though small networks are faster on cpu (docs/deploy.md); "
        "naming one that is not there is an error.",
    )
    threads: int = Field(
        1,
        ge=1,
        le=256,
        description="CPU threads of torch; on Intel CPUs with AVX2 any number gives the same weights.",
    )


class SamplingSection(Section):
    """How programs are drawn from the policy."""

    batch_size: int = Field(256, ge=1, le=65_536, description="Programs sampled per update.")
    max_tokens: int = Field(
        0, ge=0, le=1024, description="Longest program in tokens, its <EOS> included; 0 takes the task's own."
    )
    length: Literal["free", "fixed"] = Field(
        "free",
        description="free: a program ends with <EOS>; fixed: every program has exactly max_tokens tokens and no <EOS>, "
        "which needs grammar none.",
    )
    temperature: float = Field(1.0, gt=0, le=100, description="Logits are divided by this before sampling.")
    grammar: Literal["language", "syntax", "none"] = Field(
        "language",
        description="language: only tokens with which the program still parses, with types, numbers of arguments and "
        "names bound before they are read; syntax: only what parses, for Python (for the other languages the same as "
        "language); none: any token.",
    )
    deal: int = Field(
        0,
        ge=0,
        le=65536,
        description="Programs that one generator draws at a time, where there are several; 0 is a whole batch. Part of "
        "what makes a run repeat bit for bit, whatever the number of generators.",
    )

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.length == "fixed" and self.grammar != "none":
            raise ValueError("length fixed cannot be kept by a grammar; set grammar to none, or length to free")
        return self


class ObjectiveSection(Section):
    """What the update maximises."""

    name: Literal["reinforce", "risk_seeking", "ppo"] = Field("reinforce", description="Policy gradient estimator.")
    lag_clip: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Each token's ratio of the policy that learns to the one that drew it is clipped to 1 +- this, as "
        "in PPO, where a batch is of an older policy (async mode); 0 does not correct. Not with importance_cap.",
    )
    baseline: Literal["none", "ema", "batch_mean", "leave_one_out"] = Field(
        "leave_one_out", description="Subtracted from the reward (reinforce and ppo)."
    )
    ema_decay: float = Field(0.95, ge=0, lt=1, description="Decay of the ema baseline.")
    ema_kind: Literal["batch", "program"] = Field(
        "batch",
        description="batch: the ema baseline begins at the first batch's mean and decays once a batch; program: it "
        "begins at 0 and decays with every program in turn.",
    )
    risk_quantile: float = Field(0.1, gt=0, le=1, description="Top fraction of the batch (risk_seeking only).")
    ppo_clip: float = Field(
        0.2, gt=0, lt=1, description="A token's probability ratio is clipped to 1 +- this (ppo only)."
    )
    importance_cap: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Largest weight of a program by its probability ratio to the policy that sampled it (reinforce "
        "and risk_seeking); 0 weighs none.",
    )
    policy_weight: float = Field(1.0, ge=0, le=1000, description="Weight of the policy gradient; 0 is off.")
    loss_scale: float = Field(
        1.0, gt=0, le=1e6, description="The policy gradient and the entropy term are multiplied by this."
    )
    entropy_weight: float = Field(0.1, ge=0, le=10, description="Weight of the entropy, in nats; 0 is off.")
    entropy_sum: Literal["mean_per_token", "sum_per_program"] = Field(
        "mean_per_token", description="The entropy: its mean over tokens, or the mean over programs of a program's sum."
    )
    entropy_target: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Mean entropy per token, nats, that entropy_weight is moved to hold; 0 leaves the weight as it is.",
    )
    entropy_rate: float = Field(
        0.05, gt=0, le=10, description="Change of the weight's logarithm per update and nat off entropy_target."
    )
    entropy_weight_min: float = Field(1e-4, gt=0, le=10, description="Least weight that entropy_target may reach.")
    entropy_weight_max: float = Field(1.0, gt=0, le=10, description="Largest weight that entropy_target may reach.")
    pqt_weight: float = Field(0.2, ge=0, le=1000, description="Weight of priority-queue training; 0 is off.")
    pqt_source: Literal["queue", "archive"] = Field(
        "queue", description="What is imitated: the priority queue, or every elite of the archive."
    )
    pqt_size: int = Field(10, ge=1, le=10_000, description="Programs in the priority queue.")
    pqt_unique: Literal["behaviour", "tokens"] = Field(
        "behaviour", description="Of programs that are equal in this, the queue holds one."
    )
    pqt_offer: Literal["all", "batch_best"] = Field(
        "all",
        description="What of a batch is offered to the queue: all of it before the update, or its best after it.",
    )
    pqt_draw: Literal["all", "one"] = Field(
        "all", description="What of the queue an update learns: all of it or one program drawn uniformly."
    )
    pqt_normalise: Literal["per_token", "sum"] = Field(
        "per_token", description="A queue program's log-probability: divided by its length, or its plain sum."
    )
    novelty_weight: float = Field(
        0.0, ge=0, le=1, description="Bonus novelty_weight / sqrt(times this behaviour was seen); 0 is off."
    )

    @model_validator(mode="after")
    def _check_entropy_bounds(self) -> Self:
        if self.entropy_weight_min > self.entropy_weight_max:
            raise ValueError("entropy_weight_min is above entropy_weight_max")
        return self


class OptimizerSection(Section):
    """How the weights move."""

    name: Literal["adam", "rmsprop_tf"] = Field(
        "adam", description="rmsprop_tf: RMSProp whose mean square begins at 1, with epsilon inside the square root."
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Step size.")
    decay: float = Field(0.99, ge=0, lt=1, description="Decay of the mean square (rmsprop_tf only).")
    epsilon: float = Field(1e-10, gt=0, le=1, description="Added to the mean square (rmsprop_tf only).")
    gradient_clip: float = Field(1.0, gt=0, le=1e6, description="Largest global gradient norm.")


class RewardSection(Section):
    """How a program's outputs become a reward in [0, 1]. The weights are divided by their sum."""

    syntax: float = Field(0.05, ge=0, le=1, description="Weight of: it compiles.")
    runs: float = Field(0.15, ge=0, le=1, description="Weight of: it ends by itself without an error.")
    similarity: float = Field(0.4, ge=0, le=1, description="Weight of: its output is close to the expected one.")
    exact: float = Field(0.4, ge=0, le=1, description="Weight of: its output is the expected one.")
    trend: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Weight of: its outputs grow as the expected ones do, by whatever factor. Only for tasks of three "
        "cases or more that each expect one number, not the same for all; others leave it out of the sum.",
    )
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
    redis_password_file: str = Field(
        "", description="File with the password of redis_url's user, which then stands in no address; empty: none."
    )
    shard_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="Programs per job, fixed for a run; 0 means 32 for sandboxed languages, 1024 for brainf.",
    )
    lease_s: float = Field(15.0, ge=0.1, le=3600, description="A job not renewed for this long goes to another worker.")
    max_deliveries: int = Field(3, ge=1, le=100, description="Deliveries after which a job is dead and the run stops.")
    window_jobs: int = Field(
        10_000, ge=1, description="Jobs of a run that may wait or be in hand; more are submitted as these are done."
    )
    rpc_timeout_s: float = Field(120.0, gt=0, le=3600, description="Deadline of a call between roles.")


class TrainerSection(Section):
    """The trainer's processes; see docs/multi-gpu.md. Of its own configuration, not the run's."""

    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that compute a share of each update, one for each GPU where there are GPUs; above 1 the "
        "trainer is launched as torchrun does it. Part of what makes a run repeat bit for bit.",
    )
    group_timeout_s: float = Field(
        120.0, ge=1, le=3600, description="Silence after which a process takes another for gone, and all of them end."
    )


class WatchdogSection(Section):
    """When a run that does not get on says so, and when it gives up."""

    report_after: float = Field(
        20.0, ge=1, description="Report what is waited for after this many times the median update."
    )
    fail_after: float = Field(
        400.0, ge=1, description="Fail the run after this many times the median update without progress."
    )
    least_report_s: float = Field(10.0, gt=0, description="Seconds before which nothing is reported.")
    least_fail_s: float = Field(600.0, gt=0, description="Seconds before which no run fails for want of progress.")
    restarts: int = Field(
        30, ge=0, description="Times that `altlas train` replaces a dead process of each role before the run fails."
    )


class SecuritySection(Section):
    """Who may talk to a role. Empty paths: plaintext, and whoever reaches the address."""

    tls_ca: str = Field("", description="PEM file of the authorities whose certificates are believed.")
    tls_cert: str = Field("", description="PEM file of this role's certificate, with which it serves and calls.")
    tls_key: str = Field("", description="PEM file of that certificate's private key.")
    token_file: str = Field(
        "", description="File with the bearer token that callers of the coordinator must show; empty asks for none."
    )


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
    curriculum: CurriculumSection = CurriculumSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    model: ModelSection = ModelSection()
    sampling: SamplingSection = SamplingSection()
    proposals: ProposalsSection = ProposalsSection()
    archive: ArchiveSection = ArchiveSection()
    ga: GaSection = GaSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    reward: RewardSection = RewardSection()
    sandbox: SandboxSection = SandboxSection()
    transport: TransportSection = TransportSection()
    trainer: TrainerSection = TrainerSection()
    watchdog: WatchdogSection = WatchdogSection()
    security: SecuritySection = SecuritySection()
    paths: PathsSection = PathsSection()
    logging: LoggingSection = LoggingSection()
