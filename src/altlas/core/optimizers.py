"""The optimizers that [optimizer] chooses among. Their state is tensors alone, one set a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from altlas.config.sections import OptimizerSection
from altlas.errors import ConfigError


class _Optimizer(torch.optim.Optimizer):
    """torch's, without what keeps it out of torch's compiler: that imports the compiler, for 2 s, and is paid per call.

    Nothing here is ever compiled by torch, so the functions under its wrappers do the same.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class Adam(_Optimizer, torch.optim.Adam):
    """torch's Adam (Kingma and Ba 2015), the parameters of a CPU in one call."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float) -> None:
        parameters = list(parameters)
        is_on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
        super().__init__(parameters, lr=learning_rate, fused=is_on_cpu or None)


class RMSPropTF(_Optimizer):
    """RMSProp as TensorFlow 1 computes it, without momentum.

    m <- decay m + (1 - decay) g^2 with m = 1 at first; w <- w - lr g / sqrt(m + epsilon). torch.optim.RMSprop begins
    at m = 0 and adds its epsilon outside the root, so that its first steps are some ten times as long.
    """

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, decay: float, epsilon: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; return what `closure`, which sets them, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean_square"] = torch.ones_like(parameter)
        mean_square: Tensor = state["mean_square"]
        mean_square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1.0 - group["decay"])
        parameter.addcdiv_(gradient, (mean_square + group["epsilon"]).sqrt_(), value=-group["lr"])


def build_optimizer(policy: nn.Module, section: OptimizerSection) -> torch.optim.Optimizer:
    """Return the optimizer that the section names, over all of the policy's parameters.

    Raises:
        ConfigError: there is no such optimizer.
    """
    if section.name == "adam":
        return Adam(policy.parameters(), learning_rate=section.learning_rate)
    if section.name == "rmsprop_tf":
        return RMSPropTF(
            policy.parameters(), learning_rate=section.learning_rate, decay=section.decay, epsilon=section.epsilon
        )
    raise ConfigError(f"optimizer.name: {section.name!r} is none of adam, rmsprop_tf")
