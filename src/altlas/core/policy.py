"""The policy network, its first weights, its bytes and its hash.

First weights are a pure function of the [model] section and (seed, restart index, parameter's name) and touch no global
generator. Bytes are safetensors, never pickle. Equal weights have equal hashes on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load
from torch import Tensor, nn

from altlas.config.sections import ModelSection
from altlas.core.rng import uniform
from altlas.errors import CheckpointError

State = Tensor | tuple[Tensor, Tensor]


class AltlasRNN(nn.Module):
    """Embedding, LSTM or GRU, linear: next-token logits for every prefix.

    Construct through `build_policy` or `policy_from_bytes`, which draw no number from a global generator.
    """

    def __init__(self, model: ModelSection, vocabulary_size: int) -> None:
        super().__init__()
        cell = nn.LSTM if model.cell == "lstm" else nn.GRU
        self.embedding = nn.Embedding(vocabulary_size, model.embedding)
        self.rnn = cell(model.embedding, model.hidden, num_layers=model.layers, batch_first=True)
        self.output = nn.Linear(model.hidden, vocabulary_size, bias=model.output_bias)
        if model.initialisation == "glorot" and model.cell == "lstm":
            # The published cell has one bias a gate. A second one that learns too would double the bias's steps.
            for layer in range(model.layers):
                self.rnn.get_parameter(f"bias_hh_l{layer}").requires_grad_(False)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return logits float32 [B, T, V] and the state after the last token, for tokens int64 [B, T]."""
        hidden, state = self.rnn(self.embedding(tokens), state)
        return self.output(hidden), state


def build_policy(model: ModelSection, vocabulary_size: int, *, seed: int, restart_index: int = 0) -> AltlasRNN:
    """Return a policy on the CPU with the first weights of the run's `restart_index`-th start.

    `uniform`: recurrent and output parameters are uniform on +-1/sqrt(hidden), PyTorch's own range for them; embeddings
    on +-sqrt(3), unit variance. `glorot`: see `glorot_bound`; embeddings on +-1, biases 0, an LSTM's forget gate 1.
    """
    policy = _empty_policy(model, vocabulary_size)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            bound = _bound(name, model, vocabulary_size)
            draws = uniform(
                seed, f"init/{name}", update=restart_index, first_index=0, count=1, per_index=parameter.numel()
            )
            parameter.copy_(torch.from_numpy(draws).reshape(parameter.shape).mul_(2.0).sub_(1.0).mul_(bound))
        if model.initialisation == "glorot" and model.cell == "lstm":
            for layer in range(model.layers):
                policy.rnn.get_parameter(f"bias_ih_l{layer}")[model.hidden : 2 * model.hidden] = 1.0
    return policy


def glorot_bound(fan_in: int, fan_out: int, factor: float) -> float:
    """Return sqrt(6 factor / (fan_in + fan_out)), the bound of a uniform draw (Glorot and Bengio 2010, equation 16)."""
    return math.sqrt(6.0 * factor / (fan_in + fan_out))


def _bound(name: str, model: ModelSection, vocabulary_size: int) -> float:
    """Return the bound of a parameter's uniform draw, 0 for one that begins at 0."""
    if model.initialisation == "uniform":
        return math.sqrt(3.0) if name == "embedding.weight" else 1.0 / math.sqrt(model.hidden)
    if name == "embedding.weight":
        return 1.0
    if "bias" in name:
        return 0.0
    if name == "output.weight":
        return glorot_bound(model.hidden, vocabulary_size, model.init_factor)
    # The two matrices of a layer are one kernel, [inputs and hidden, gates], as far as its fans go.
    inputs = model.embedding if name.endswith("_l0") else model.hidden
    gates = 4 if model.cell == "lstm" else 3
    return glorot_bound(inputs + model.hidden, gates * model.hidden, model.init_factor)


def policy_sha256(policy: nn.Module) -> str:
    """Return `tensors_sha256` of the policy's parameters."""
    return tensors_sha256(policy.state_dict())


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal SHA-256 over every tensor's name, dtype, shape and little-endian bytes, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as a safetensors file."""
    # By way of numpy: the writer for torch's tensors takes most of a millisecond for a small policy.
    return bytes(save({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}))


def tensors_from_bytes(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: not a safetensors file.
    """
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise CheckpointError(f"{len(data)} bytes of tensors are not a safetensors file: {error}") from error


def policy_from_tensors(tensors: Mapping[str, Tensor], model: ModelSection, vocabulary_size: int) -> AltlasRNN:
    """Return a policy on the CPU with these weights.

    Raises:
        CheckpointError: they are not of this model and vocabulary.
    """
    policy = _empty_policy(model, vocabulary_size)
    load_weights(policy, tensors)
    return policy


def load_weights(policy: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the policy's parameters.

    Raises:
        CheckpointError: names, shapes or types differ from the policy's.
    """
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in policy.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        raise CheckpointError(
            "policy weights do not fit the [model] section and the vocabulary; use those the weights were made with: "
            + "; ".join(wrong)
        )
    policy.load_state_dict(tensors)


def _empty_policy(model: ModelSection, vocabulary_size: int) -> AltlasRNN:
    # The layers draw weights of their own, which are overwritten; the global generator must not notice. The meta device
    # would draw none, but costs 1.6 s of imports the first time.
    with torch.random.fork_rng(devices=[]):
        return AltlasRNN(model, vocabulary_size)
