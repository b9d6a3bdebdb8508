"""A policy rewritten for sampling: one step per call, the first layer's input product turned into a table look-up.

`embedding(token) @ W_ih + b` depends on the token alone, so its V rows are computed once and gathered per step. The
weights are a copy of the policy's at construction; make a new one after an update (it costs less than one step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from altlas.core.policy import AltlasRNN
from altlas.core.trajectory import FloatArray

LayerState = tuple[Tensor, ...]


class StepPolicy(Protocol):
    """A policy as a step function over lanes."""

    def initial(self, count: int) -> list[LayerState]:
        """Return the state of `count` lanes before the first token."""

    def select(self, state: list[LayerState], lanes: Tensor) -> list[LayerState]:
        """Return the state of `lanes`, int64 [n], which may repeat."""

    def step(self, tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """Return logits float32 [n, V] and the next state, for one token int64 [n] per lane."""


class UniformPolicy:
    """Equal logits whatever came before: with a constraint's mask, uniform over the legal tokens."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self._logits = torch.zeros(1, vocabulary_size, device=device)

    def initial(self, count: int) -> list[LayerState]:
        """See StepPolicy."""
        return []

    def select(self, state: list[LayerState], lanes: Tensor) -> list[LayerState]:
        """See StepPolicy."""
        return state

    def step(self, tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """See StepPolicy."""
        return self._logits.expand(len(tokens), -1), state


@dataclass(frozen=True, slots=True)
class LstmArrays:
    """An LSTM policy as `altlas.core.lstm_kernel` takes it.

    table: float32 [V, 4H]. weights: [L, H, 4H]. inputs: [L - 1, H, 4H]. biases: [L - 1, 4H]. output: [H, V].
    output_bias: [V].
    """

    table: FloatArray
    weights: FloatArray
    inputs: FloatArray
    biases: FloatArray
    output: FloatArray
    output_bias: FloatArray


class FoldedPolicy:
    """The policy as a step function over lanes. Call it under inference_mode."""

    def __init__(self, policy: AltlasRNN) -> None:
        weights = policy.rnn.state_dict()
        self._hidden = policy.rnn.hidden_size
        self._step_layer = _lstm_step if isinstance(policy.rnn, nn.LSTM) else _gru_step
        self._is_lstm = isinstance(policy.rnn, nn.LSTM)
        self._layers = [self._layer(weights, index) for index in range(policy.rnn.num_layers)]
        first_input, first_bias = self._layers[0].input_weight, self._layers[0].input_bias
        self._table = torch.addmm(first_bias, policy.embedding.weight, first_input)
        self._output_weight = policy.output.weight.t().contiguous()
        self._output_bias = policy.output.bias

    def _layer(self, weights: dict[str, Tensor], index: int) -> _Layer:
        input_bias, hidden_bias = weights[f"bias_ih_l{index}"], weights[f"bias_hh_l{index}"]
        scale = torch.ones_like(input_bias)
        if self._is_lstm:
            input_bias = input_bias + hidden_bias
            scale[2 * self._hidden : 3 * self._hidden] = 2.0  # see _lstm_step
        return _Layer(
            input_weight=(weights[f"weight_ih_l{index}"].t() * scale).contiguous(),
            input_bias=input_bias * scale,
            hidden_weight=(weights[f"weight_hh_l{index}"].t() * scale).contiguous(),
            hidden_bias=hidden_bias,
        )

    def arrays(self) -> LstmArrays | None:
        """Return the weights for the compiled loops; None where the policy is no LSTM on the CPU."""
        if not self._is_lstm or self._table.device.type != "cpu":
            return None
        bias = self._output_weight.new_zeros(self._output_weight.shape[1])
        if self._output_bias is not None:
            bias = self._output_bias
        hidden = [layer.hidden_weight[None] for layer in self._layers]
        parts = (
            self._table,
            torch.cat(hidden),
            torch.cat([hidden[0][:0], *(layer.input_weight[None] for layer in self._layers[1:])]),
            torch.cat([self._table[:0], *(layer.input_bias[None] for layer in self._layers[1:])]),
            self._output_weight,
            bias,
        )
        return LstmArrays(*(part.detach().numpy() for part in parts))

    def initial(self, count: int) -> list[LayerState]:
        """Return the zero state of `count` lanes."""
        zero = self._table.new_zeros(count, self._hidden)
        return [(zero, zero) if self._is_lstm else (zero,) for _ in self._layers]

    def select(self, state: list[LayerState], lanes: Tensor) -> list[LayerState]:
        """Return the state of `lanes`, int64 [n], which may repeat."""
        return [tuple(part.index_select(0, lanes) for part in layer) for layer in state]

    def step(self, tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """Return logits float32 [n, V] and the next state, for one token int64 [n] per lane."""
        gates = self._table.index_select(0, tokens)
        following: list[LayerState] = []
        for index, (layer, old) in enumerate(zip(self._layers, state, strict=True)):
            if index:
                gates = torch.addmm(layer.input_bias, following[-1][0], layer.input_weight)
            following.append(self._step_layer(gates, old, layer))
        hidden = following[-1][0]
        if self._output_bias is None:
            return hidden @ self._output_weight, following
        return torch.addmm(self._output_bias, hidden, self._output_weight), following


class _Layer:
    """One layer's weights, transposed for row-major products: [in, gates]."""

    def __init__(self, *, input_weight: Tensor, input_bias: Tensor, hidden_weight: Tensor, hidden_bias: Tensor) -> None:
        self.input_weight = input_weight
        self.input_bias = input_bias
        self.hidden_weight = hidden_weight
        self.hidden_bias = hidden_bias


def _lstm_step(gates: Tensor, state: LayerState, layer: _Layer) -> LayerState:
    """PyTorch's LSTM equations, gates in its order i, f, g, o; overwrites `gates`.

    tanh(x) is taken as 2 sigmoid(2x) - 1, a third of torch.tanh's time on a CPU and within 1e-7 of it; the candidate's
    2x comes with its weights, so one sigmoid does all gates.
    """
    hidden, cell = state
    in_gate, forget_gate, candidate, out_gate = gates.addmm_(hidden, layer.hidden_weight).sigmoid_().chunk(4, dim=1)
    cell = (forget_gate * cell).addcmul_(in_gate, candidate, value=2.0).sub_(in_gate)
    return (out_gate * (cell * 2.0).sigmoid_()).mul_(2.0).sub_(out_gate), cell


def _gru_step(gates: Tensor, state: LayerState, layer: _Layer) -> LayerState:
    """PyTorch's GRU equations, gates in its order r, z, n; the candidate's hidden bias lies inside the reset gate."""
    (hidden,) = state
    from_hidden = torch.addmm(layer.hidden_bias, hidden, layer.hidden_weight)
    input_reset, input_update, input_new = gates.chunk(3, dim=1)
    hidden_reset, hidden_update, hidden_new = from_hidden.chunk(3, dim=1)
    reset = (input_reset + hidden_reset).sigmoid_()
    update = (input_update + hidden_update).sigmoid_()
    candidate = torch.addcmul(input_new, reset, hidden_new).tanh_()
    return (candidate + update * (hidden - candidate),)
