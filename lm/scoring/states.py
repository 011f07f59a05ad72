"""Log-probs from hidden states: the head at the states that predict something, in chunks, inside the model's forward.

For the length of one call the output embedding's `forward` picks those states and returns log-probs, and whatever
states are wanted themselves, which the model hands back as its logits. Every hook of every module still fires exactly
once, so that sharded weights are gathered, adapters applied and tied weights used as in any forward, and no tensor of
tokens x vocabulary exists. In the same way a scalar head gives rewards at chosen states (`read_in_head`).

Legend: B rows, S their length, D width, U distinct states that predict, N predictions, W wanted states, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lm.scoring.log_softmax import SOFTMAX_STATES, PickedLogProbs
from lm.scoring.replaced_forward import replaced_forward
from text.errors import UserError

LOGITS_AT_ONCE = 2**25  # elements of one chunk of logits on a CPU
MIN_CHUNK = 256  # states; with smaller chunks adding up the head's weight gradient dominates
# Without gradients smaller chunks cost nothing, and a softmax in slices needs no second chunk (benchmarks/probing.py).
LOGITS_WITHOUT_GRAD = 2**23
# On a GPU few states at a time leave it idle. An element takes 12 bytes at most, its float32 softmax and gradients
# counted, so that a chunk takes a twentieth of the memory: 2,600 states at V = 128 k with 80 GiB.
BYTES_PER_LOGIT = 256


@dataclass(frozen=True)
class Predictions:
    """Which hidden states predict which tokens, grouped by state.

    Attributes:
        states: [U] indices into the B * S hidden states; None means all of them, in order.
        offsets: U + 1 integers on the host; state u makes the predictions ``offsets[u]:offsets[u + 1]``.
        state_of, targets: [N] grouped; which of the U states predicts, and the token.
        order: [N]; where prediction n went when they were grouped. None: nowhere.
        wanted: [W] indices like `states`, of those that are wanted themselves.
    """

    states: Tensor | None
    offsets: Sequence[int]
    state_of: Tensor
    targets: Tensor
    order: Tensor | None
    wanted: Tensor

    @classmethod
    def of(cls, sources: Tensor, targets: Tensor, device: torch.device) -> Predictions:
        """From N pairs (state, token) on the host, for a model on `device`; sources beyond them are wanted states."""
        sources, wanted = sources[: len(targets)], sources[len(targets) :]
        states, state_of, counts = torch.unique(sources, return_inverse=True, return_counts=True)
        grouped = state_of.argsort(stable=True)
        tensors = states, state_of[grouped], targets[grouped], grouped.argsort(), wanted
        states, state_of, targets, order, wanted = (t.to(device, non_blocking=True) for t in tensors)
        return cls(states, [0, *counts.cumsum(0).tolist()], state_of, targets, order, wanted)

    @classmethod
    def of_every_state(cls, targets: Tensor) -> Predictions:
        """One prediction per state, in order."""
        every = torch.arange(len(targets), device=targets.device)
        return cls(None, range(len(targets) + 1), every, targets, None, every[:0])


Read = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the logits of U states, and which of them predicts which token, to one number per prediction."""


class _ReadingHead:
    """Stands in for the forward of a head, for one call of its model.

        hidden states [B, S, D]
           |-- that predict [U, D] -- head, finish, read: a chunk at a time --> values [N] --.
           `-- that are wanted [W, D] --------------------------------------------------------+--> [N + W * D]

    Args:
        head: the forward that it stands in for.
        finish: what the model would do to its logits.
        read: see `logprobs_in_head`.
        predictions: likewise.
        chunk: likewise.
    """

    def __init__(
        self,
        head: Callable[[Tensor], Tensor],
        finish: Callable[[Tensor], Tensor],
        read: Read,
        predictions: Predictions,
        chunk: int,
    ):
        self.head, self.finish, self.read, self.of, self.chunk = head, finish, read, predictions, chunk

    def __call__(self, hidden_BSD: Tensor) -> Tensor:
        """All that is read, in one tensor: models hand back one."""
        hidden, of = hidden_BSD.flatten(0, 1), self.of
        self.width, self.dtype = hidden.shape[-1], hidden.dtype
        hidden_UD = hidden if of.states is None else hidden.index_select(0, of.states)
        recompute = torch.is_grad_enabled() and len(hidden_UD) > self.chunk
        pieces = []
        for low in range(0, len(hidden_UD), self.chunk):
            high = min(low + self.chunk, len(hidden_UD))
            edges = slice(of.offsets[low], of.offsets[high])
            args = hidden_UD[low:high], of.state_of[edges] - low, of.targets[edges]
            pieces.append(checkpoint(self._values, *args, use_reentrant=False) if recompute else self._values(*args))
        if len(of.wanted):  # of no state a gradient as large as all of them would be made
            pieces.append(hidden.index_select(0, of.wanted).flatten())
        return torch.cat(pieces)

    def _values(self, hidden_UD: Tensor, state_of_N: Tensor, targets_N: Tensor) -> Tensor:
        return self.read(self.finish(self.head(hidden_UD)), state_of_N, targets_N)

    def apart(self, together: Tensor) -> tuple[Tensor, Tensor]:
        """Of what the model handed back: values [N] in the order of the predictions, and wanted states [W, D]."""
        values_N, wanted = together.split([len(self.of.targets), len(self.of.wanted) * self.width])
        return _ordered(values_N, self.of), wanted.view(-1, self.width).to(self.dtype)


def logprobs_in_head(
    model: nn.Module,
    causal: PreTrainedModel,
    inputs: dict,
    predictions: Predictions,
    chunk: int | None = None,
    read: Read | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probs [N] of `predictions`, float32 or wider, and the states that are wanted [W, D].

    Logits are computed again in backward where there is more than one chunk.

    Args:
        model: what is called: `causal` or a wrapper of it.
        causal: the causal language model that holds the head.
        inputs: keyword arguments of the call.
        predictions: states are counted over the rows of `inputs`.
        chunk: states whose logits are held at once; by default see `chunk_on`.
        read: what is wanted in place of log-probs, such as `ranks`.
    """
    chunk = chunk or chunk_on(predictions.targets.device, causal.config.get_text_config().vocab_size)
    head = causal.get_output_embeddings()
    with bare_head(causal) as finish:
        reading = _ReadingHead(head.forward, finish, read or _picked, predictions, chunk)
        with replaced_forward(head, reading):
            together = model(**inputs, use_cache=False).logits
    return reading.apart(together)


def chunk_on(device: torch.device, vocab_size: int) -> int:
    """How many states' logits are held at once on a device, with gradients or without as things are."""
    least, most = (MIN_CHUNK, LOGITS_AT_ONCE) if torch.is_grad_enabled() else (MIN_CHUNK // 2, LOGITS_WITHOUT_GRAD)
    if device.type == "cuda":
        most = torch.cuda.get_device_properties(device).total_memory // BYTES_PER_LOGIT
    return max(least, most // vocab_size)


def logprobs_of_logits(
    model: nn.Module, causal: PreTrainedModel, inputs: dict, predictions: Predictions, read: Read | None = None
) -> tuple[Tensor, Tensor]:
    """The same from the model's own logits, at those columns where anything is predicted: any head, more memory.

    Raises:
        UserError: states are wanted: which of the model's tensors they are is not known.
    """
    if len(predictions.wanted):
        raise UserError(f"the states of {type(causal).__name__} cannot be read: its head is not one that is known")
    width = inputs["input_ids"].shape[1]
    if predictions.states is None or "logits_to_keep" not in inspect.signature(causal.forward).parameters:
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)
        logits = logits if predictions.states is None else logits.index_select(0, predictions.states)
    else:
        columns, column = torch.unique(predictions.states % width, return_inverse=True)
        logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits[predictions.states // width, column]
    logprobs_N = (read or _picked)(logits, predictions.state_of, predictions.targets)
    return _ordered(logprobs_N, predictions), logits.new_zeros(0, 0)


def _ordered(values_N: Tensor, predictions: Predictions) -> Tensor:
    return values_N if predictions.order is None else values_N[predictions.order]


def read_in_head(
    model: nn.Module,
    scorer: PreTrainedModel,
    inputs: dict,
    states_P: Tensor,
    read: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
) -> Tensor:
    """What is made of some hidden states inside the head of a scorer, flattened.

    Args:
        model: what is called: `scorer` or a wrapper of it.
        scorer: a sequence classifier of transformers, whose head is called ``score``.
        inputs: keyword arguments of the call.
        states_P: which states, counted over the rows of `inputs`; on the model's device.
        read: gets the head's own forward and the states [P, D].
    """
    head, config = scorer.score, scorer.config.get_text_config()
    plain, pad = head.forward, config.pad_token_id

    def picked(hidden_BSD: Tensor) -> Tensor:
        values = read(plain, hidden_BSD.flatten(0, 1).index_select(0, states_P)).flatten()
        return values.expand(*hidden_BSD.shape[:2], -1)  # the model takes some column of each row: all are alike

    try:
        config.pad_token_id = pad or 0  # which column may depend on it, and without one several rows are refused
        with replaced_forward(head, picked):
            return model(**inputs, use_cache=False).logits[0]
    finally:
        config.pad_token_id = pad


def _picked(logits_UV: Tensor, state_of_N: Tensor, targets_N: Tensor) -> Tensor:
    """The normalised log-probs of some tokens. The softmax is float32 or wider, whatever the model runs in."""
    if torch.is_grad_enabled() and logits_UV.device.type != "cpu":
        wide = torch.promote_types(logits_UV.dtype, torch.float32)
        return logits_UV.log_softmax(-1, dtype=wide)[state_of_N, targets_N]
    return PickedLogProbs.apply(logits_UV, state_of_N, targets_N)


def ranks(logits_UV: Tensor, state_of_N: Tensor, targets_N: Tensor) -> Tensor:
    """Places of some tokens among the vocabulary by their logits: 1 is the best, equal ones share the better place.

    What is not a number (NaN) has the last place.
    """
    places = []
    for low in range(0, len(targets_N), SOFTMAX_STATES):
        states_N, tokens_N = state_of_N[low : low + SOFTMAX_STATES], targets_N[low : low + SOFTMAX_STATES]
        logits = logits_UV[states_N]
        behind = (logits <= logits.gather(1, tokens_N[:, None])).sum(-1)  # itself among them, if it is a number
        places.append(1 + logits.shape[1] - behind.clamp(min=1))
    return torch.cat(places).float()  # as models hand their logits back


def are_greedy(logits_UV: Tensor, state_of_N: Tensor, targets_N: Tensor) -> Tensor:
    """1 where greedy decoding would write the token, of equally likely ones the first; 0 for others, and for NaN."""
    chosen_U = logits_UV.argmax(-1).masked_fill(logits_UV.isnan().any(-1), -1)
    return (chosen_U[state_of_N] == targets_N).float()


def _capped(logits: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(logits / cap)


def _divided(logits: Tensor, scale: float) -> Tensor:
    return logits / scale


def _multiplied(logits: Tensor, scale: float) -> Tensor:
    return logits * scale


# What models do to logits after the head: an attribute of the text config (True) or of the model, the value with which
# nothing is done, and what is done with any other. lm/scoring/trial.py finds out a model for which this table is too
# short.
OPERATIONS = (
    (True, "logits_scaling", 1.0, _divided),  # Granite
    (False, "logit_scale", 1.0, _multiplied),  # Cohere
    (True, "final_logit_softcapping", None, _capped),  # Gemma 2 and 3
)


@contextmanager
def bare_head(causal: PreTrainedModel) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within it the model returns what its head returns; yields what it would have done to the logits."""
    found = []
    for of_config, name, neutral, operation in OPERATIONS:
        owner = causal.config.get_text_config() if of_config else causal
        value = getattr(owner, name, neutral)
        if isinstance(value, int | float) and value != neutral:
            found.append((owner, name, value, neutral, operation))

    def finish(logits: Tensor) -> Tensor:
        for _, _, value, _, operation in found:
            logits = operation(logits, value)
        return logits

    try:
        for owner, name, _, neutral, _ in found:
            setattr(owner, name, neutral)
        yield finish
    finally:
        for owner, name, value, _, _ in found:
            setattr(owner, name, value)
