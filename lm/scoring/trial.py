"""What a model can do, found out by trying: once per model, on a forest of a dozen tokens, without a trace in training.

Two shortcuts are tried against the model's own logits of plain rows: log-probs computed inside the head
(lm/scoring/states.py), and a tree mask (lm/scoring/attention.py); of a model with a scalar head likewise its rewards. A
model that gets another number, or none, takes the long way and says so once. The trial is in float32 and with windows
that its paths leave, wherever that can be (lm/scoring/trial_conditions.py). Decisions follow from the weights alone, so
that all ranks come to the same ones with the same number of forwards.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from transformers import PreTrainedModel

from lm.forests.forest import Forest, Node
from lm.scoring.attention import tree_inputs
from lm.scoring.states import Predictions, logprobs_in_head, logprobs_of_logits, read_in_head
from lm.scoring.trial_conditions import undisturbed
from text.errors import UserError

_HEADS: WeakKeyDictionary[nn.Module, Head] = WeakKeyDictionary()
_TREES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class Tolerance(NamedTuple):
    """Differences of log-probs that rounding explains: the largest, and the mean."""

    largest: float
    mean: float


@dataclass(frozen=True)
class Head:
    """How log-probs are taken from a model.

    Attributes:
        read: `logprobs_in_head` if that gives the model's own numbers, else `logprobs_of_logits`; called with a model,
            the causal one inside it, inputs and predictions.
        tolerance: of the trial.
    """

    read: Callable[..., tuple[Tensor, Tensor]]
    tolerance: Tolerance


def head_of(model: nn.Module, causal: PreTrainedModel, device: torch.device) -> Head:
    """The head of `causal`, called through `model`: inside its forward where that is right, else on whole logits."""
    if causal not in _HEADS:
        rows = _trial(causal).unroll()
        inputs = {"input_ids": rows.input_ids.to(device)}
        predictions = Predictions.of(rows.sources, rows.targets, device)
        with undisturbed(causal, device):
            logits, dtype = _logits_and_dtype(model, causal, inputs)
            tolerance = _tolerance(logits, dtype)
            expected = logits.flatten(0, 1).log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
            expected = expected.cpu()[rows.sources, rows.targets]
            problem = _differs(lambda: logprobs_in_head(model, causal, inputs, predictions)[0], expected, tolerance)
        if problem:
            _warn(causal, "takes its log-probs from whole logits, which needs more memory", problem)
            _HEADS[causal] = Head(logprobs_of_logits, tolerance)
        else:
            _HEADS[causal] = Head(logprobs_in_head, tolerance)
    return _HEADS[causal]


def takes_trees(model: nn.Module, causal: PreTrainedModel, device: torch.device) -> bool:
    """Whether `causal` computes a forest as it computes the forest's rows. If so, its attention becomes "forest"."""
    if causal not in _TREES:
        head, targets = head_of(model, causal, device), _trial(causal).targets

        def logprobs(inputs: dict, sources: Tensor) -> Tensor:
            return head.read(model, causal, inputs, Predictions.of(sources, targets, device))[0]

        _try_trees(causal, device, logprobs, head.tolerance)
    return _TREES[causal]


def scorer_takes_trees(model: nn.Module, scorer: PreTrainedModel, device: torch.device) -> bool:
    """The same of a model with a scalar head, by the states that its head sees: rewards may all be 0 at first.

    Raises:
        UserError: if its rewards are not those of its head at the last token.
    """
    if scorer not in _TREES:
        _require_own_reward(model, scorer, device)

        def states(inputs: dict, sources: Tensor) -> Tensor:
            return read_in_head(model, scorer, inputs, sources.to(device), lambda _, states_PD: states_PD)

        _try_trees(scorer, device, states)
    return _TREES[scorer]


def encoder_takes_trees(model: nn.Module, encoder: PreTrainedModel, device: torch.device) -> bool:
    """The same of a model without a head, by the states themselves.

    Raises:
        UserError: if a token sees what comes after it.
    """
    if encoder not in _TREES:
        _require_causal(model, encoder, device)

        def states(inputs: dict, sources: Tensor) -> Tensor:
            return model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[sources.to(device)]

        _try_trees(encoder, device, states)
    return _TREES[encoder]


def _try_trees(
    causal: PreTrainedModel,
    device: torch.device,
    read: Callable[[dict, Tensor], Tensor],
    tolerance: Tolerance | None = None,
) -> None:
    """Find out whether what `read` gets of inputs and sources is the same for a forest and for its rows."""
    before, forest = causal.config._attn_implementation, _trial(causal)
    rows = forest.unroll()
    if "position_ids" not in inspect.signature(causal.forward).parameters:
        problem = "it takes no position_ids"
    else:
        with undisturbed(causal, device):
            expected = read({"input_ids": rows.input_ids.to(device)}, rows.sources)
            tolerance = tolerance or _tolerance(expected, expected.dtype)
            problem = _differs(
                lambda: read(tree_inputs(causal, forest.to(device)), forest.sources), expected, tolerance
            )
    if problem and causal.config._attn_implementation != before:
        causal.set_attn_implementation(before)
    _TREES[causal] = not problem
    if problem:
        _warn(causal, "computes shared prefixes once per branch, as padded rows", problem)


def _require_own_reward(model: nn.Module, scorer: PreTrainedModel, device: torch.device) -> None:
    ids = _trial(scorer).unroll().input_ids[:1].to(device)
    last = torch.tensor([ids.shape[1] - 1], device=device)
    with undisturbed(scorer, device):
        own = model(input_ids=ids, use_cache=False).logits
        read = read_in_head(model, scorer, {"input_ids": ids}, last, lambda head, states_PD: head(states_PD))
    if own.shape != (1, 1) or abs(float(own - read)) > _tolerance(own, own.dtype).largest:
        raise UserError(f"{type(scorer).__name__} does not read its reward from the state of the last token alone")


def _require_causal(model: nn.Module, encoder: PreTrainedModel, device: torch.device) -> None:
    ids = _trial(encoder).unroll().input_ids[:1].to(device)
    with undisturbed(encoder, device):
        try:
            whole, begun = (model(input_ids=row, use_cache=False).last_hidden_state for row in (ids, ids[:, :3]))
        except TypeError as error:
            raise UserError(f"{type(encoder).__name__} is no decoder, which forests are for: {error}") from error
    if float((whole[:, :3] - begun).abs().max()) > _tolerance(whole, whole.dtype).largest:
        raise UserError(f"{type(encoder).__name__} reads both ways, and forests are for models that read forwards")


def _trial(causal: PreTrainedModel) -> Forest:
    """Two trees, a fork, a branch on a branch; distinct tokens from mid-vocabulary, far from special ones."""
    size = causal.config.get_text_config().vocab_size
    ids = iter([(size // 2 + 7 * i) % size for i in range(14)])

    def run(length: int) -> list[int]:
        return [next(ids) for _ in range(length)]

    deep = Node(run(3), [Node(run(2), scored=True)], scored=True)
    return Forest.pack([Node(run(4), [deep, Node(run(2), scored=True)]), Node(run(1), [Node(run(2), scored=True)])])


def _logits_and_dtype(model: nn.Module, causal: PreTrainedModel, inputs: dict) -> tuple[Tensor, torch.dtype]:
    """Plain logits and the precision they were computed in, which sharding may set apart from that of the weights."""
    seen: list[torch.dtype] = []
    head = causal.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype)) if head is not None else None
    try:
        logits = model(**inputs, use_cache=False).logits
    except RuntimeError as error:
        heads, shared = (getattr(causal.config, f"num_{kind}_heads", None) for kind in ("attention", "key_value"))
        if isinstance(heads, int) and isinstance(shared, int) and shared and heads % shared:
            raise UserError(
                f"backbone: the model's {heads} num_attention_heads cannot share {shared} num_key_value_heads: "
                f"give a divisor of {heads} in 'config'"
            ) from error
        raise
    finally:
        if handle is not None:
            handle.remove()
    return logits, seen[0] if seen else logits.dtype


def _tolerance(logits: Tensor, dtype: torch.dtype) -> Tolerance:
    """In float32 half its digits: far above rounding, and below what a wrong mask does to untrained weights.

    Half the digits of bfloat16 are 2 nats of a confident model. There the mean has to be as small as rounding makes it,
    a unit in the last place of the largest logit or two.
    """
    rounding, largest = torch.finfo(dtype).eps, logits.abs().max().item()
    mean = 2 * rounding * largest if torch.finfo(dtype).bits < 32 else float("inf")
    return Tolerance(max(1e-5, rounding**0.5 * largest), max(1e-5, mean))


def _differs(compute: Callable[[], Tensor], expected: Tensor, tolerance: Tolerance) -> str:
    """Why `compute` is not to be trusted; empty if it is."""
    try:
        errors = (compute().to(expected.device) - expected).abs()
    except (torch.OutOfMemoryError, FailOnRecompileLimitHit):  # not the model's fault
        raise
    except Exception as problem:  # whatever an unknown architecture raises, it has the long way
        return f"{type(problem).__name__}: {problem}"
    largest, mean = errors.max().item(), errors.mean().item()
    if largest <= tolerance.largest and mean <= tolerance.mean:
        return ""
    return f"log-probs differ by {largest:.1e}"


def _warn(causal: PreTrainedModel, consequence: str, problem: str) -> None:
    warnings.warn(f"{type(causal).__name__} {consequence}: {problem}", stacklevel=4)
