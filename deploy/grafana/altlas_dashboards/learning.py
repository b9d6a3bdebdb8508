"""Learning: does the policy get better, at which task, and what holds it back?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from altlas_dashboards.panels import (
    BLUE,
    GREEN,
    RED,
    Query,
    Row,
    assemble,
    choice,
    column,
    graph,
    limit_line,
    number,
    rows,
    shares,
    steps,
    texts,
)

_YES_NO = {"mappings": texts({"0": ("no", "text"), "1": ("yes", GREEN)}), "custom.cellOptions": {"type": "color-text"}}


def build() -> Dashboard:
    """Return the dashboard."""
    return assemble(
        "Learning",
        "Does the policy get better, at which task, and what holds it back?",
        [_summary(), _rewards(), _tasks(), _policy()],
        choice("task", "Task", "label_values(altlas_coordinator_task_solved, task)"),
    )


def _summary() -> Row:
    return Row(
        "Where it stands",
        [
            number(
                "Tasks solved",
                "Tasks with a program that passes every case, of the runs since the coordinator's start; of several "
                "runs at one task the last one counts.",
                "none",
                Query('sum(max by (task) (altlas_coordinator_task_solved{task=~"$task"}))', "solved"),
            ).thresholds(steps((1, GREEN), base=BLUE)),
            number(
                "Best reward",
                "Reward of the best program of any task so far; 1 is a solution.",
                "none",
                Query('max(altlas_coordinator_task_reward_best{task=~"$task"})', "best"),
            )
            .decimals(2)
            .thresholds(steps((1, GREEN), base=BLUE)),
            number(
                "Mean reward",
                "Mean reward of the last batch. It is the policy that this shows, not its best program.",
                "none",
                Query("max(altlas_coordinator_reward_mean)", "mean"),
            ).decimals(2),
            number(
                "Updates",
                "Updates of the run that learned last. It goes back when a run returns to a checkpoint.",
                "none",
                Query("max(altlas_trainer_policy_version)", "updates"),
            ),
            number(
                "Programs scored",
                "Programs scored in the time range shown, duplicates included.",
                "short",
                Query("sum(increase(altlas_coordinator_programs_total[$__range]))", "programs"),
            ).decimals(1),
            number(
                "Updates refused",
                "Updates refused since the trainer's start because loss or gradient was not finite. "
                "Anything above 0 ends the run: see the batch that the trainer has kept.",
                "none",
                Query("sum(altlas_trainer_nonfinite_total)", "refused"),
            ).thresholds(steps((1, RED))),
        ],
    )


def _rewards() -> Row:
    return Row(
        "Reward",
        [
            graph(
                "Reward of a batch",
                "Mean: what the policy earns. Highest: the best program of the batch. Best: of the run so far. "
                "A mean that rises under a flat best is a policy that imitates what it has found; "
                "all three flat for long is a run that is stuck.",
                "none",
                Query("max(altlas_coordinator_reward_mean)", "mean"),
                Query("max(altlas_coordinator_reward_max)", "highest"),
                Query("max(altlas_coordinator_reward_best)", "best"),
            )
            .min(0)
            .max(1)
            .decimals(2),
            graph(
                "Best program's reward by task",
                "Reward of the best program of each task so far. 1 is a solution; a step is a discovery.",
                "none",
                Query('max by (task) (altlas_coordinator_task_reward_best{task=~"$task"})', "{{task}}"),
            )
            .min(0)
            .max(1)
            .decimals(2),
            graph(
                "Mean reward by task",
                "Mean reward of the last batch of each task. A task whose line stands still has not been sampled: "
                "the curriculum gives its turns to others.",
                "none",
                Query('max by (task) (altlas_coordinator_task_reward_mean{task=~"$task"})', "{{task}}"),
            )
            .min(0)
            .max(1)
            .decimals(2),
            graph(
                "Solutions found",
                "New programs that passed every case, and those of them that passed the held-out cases too, since the "
                "coordinator's start. The first is the event; solved and never verified: too few cases.",
                "none",
                Query('sum by (task) (altlas_coordinator_solves_total{task=~"$task"})', "{{task}} solved"),
                Query('sum by (task) (altlas_coordinator_verified_total{task=~"$task"})', "{{task}} verified"),
            )
            .min(0)
            .decimals(0),
        ],
    )


def _tasks() -> Row:
    table = rows(
        "Solve state",
        "One line per task. Solved: a program passes every case. Solutions and verified are counts since the "
        "coordinator's start.",
        "none",
        {
            "task": "Task",
            "Value #A": "Solved",
            "Value #B": "Best reward",
            "Value #C": "Mean reward",
            "Value #D": "Solutions",
            "Value #E": "Verified",
        },
        Query('max by (task) (altlas_coordinator_task_solved{task=~"$task"})'),
        Query('max by (task) (altlas_coordinator_task_reward_best{task=~"$task"})'),
        Query('max by (task) (altlas_coordinator_task_reward_mean{task=~"$task"})'),
        Query('sum by (task) (altlas_coordinator_solves_total{task=~"$task"})'),
        Query('sum by (task) (altlas_coordinator_verified_total{task=~"$task"})'),
    )
    for heading in ("Best reward", "Mean reward"):
        table = column(table, heading, decimals=3)
    return Row("By task", [column(table, "Solved", **_YES_NO)])


def _policy() -> Row:
    return Row(
        "Policy",
        [
            limit_line(
                graph(
                    "Entropy",
                    "Mean entropy per token, in nats, and objective.entropy_target where one is set. 0.5 to 1.2 is "
                    "healthy; near 0 the policy draws the same programs again and again.",
                    "none",
                    Query("max(altlas_trainer_entropy)", "entropy"),
                    Query("max(altlas_trainer_entropy_floor)", "floor"),
                ).min(0),
                "floor",
            ),
            graph(
                "Duplicates",
                "Drawn before: programs that the run had drawn already. Not run: those whose score was known, which "
                "cost nothing. A share that climbs towards 100 % is a policy that has stopped exploring.",
                "percentunit",
                Query(
                    "1 - sum(rate(altlas_coordinator_unique_programs_total[$__rate_interval]))"
                    " / sum(rate(altlas_coordinator_programs_total[$__rate_interval]))",
                    "drawn before",
                ),
                Query(
                    "1 - sum(rate(altlas_coordinator_evaluated_programs_total[$__rate_interval]))"
                    " / sum(rate(altlas_coordinator_programs_total[$__rate_interval]))",
                    "not run",
                ),
            )
            .min(0)
            .max(1),
            graph(
                "Loss",
                "Loss of the last update. Its sign and size mean little; a jump of a magnitude means much.",
                "none",
                Query("max(altlas_trainer_loss)", "loss"),
                span=8,
            ),
            graph(
                "Gradient norm",
                "Norm of the gradient before clipping to optimizer.gradient_clip. Always far above the clip: the "
                "step is the clip's, and the learning rate says how far it goes.",
                "none",
                Query("max(altlas_trainer_gradient_norm)", "norm"),
                span=8,
            ).min(0),
            shares(
                "Programs by status",
                "How the programs ended. Syntax errors fade first; timeouts that grow cost evaluators' time.",
                Query("sum by (status) (rate(altlas_coordinator_programs_total[$__rate_interval])) > 0", "{{status}}"),
                span=8,
            ),
        ],
    )
