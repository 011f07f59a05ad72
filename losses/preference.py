"""Preference losses: of pairs, with or without a reference policy; of labelled answers (KTO); of reward models.

Pure functions of summed log-probs. They do not know where these come from, nor how a batch is spread over devices: a
loss comes per pair, and what is minimised is its weighted mean over all pairs of an optimizer step.

Shape suffixes: B pairs, R labelled answers. Margins say by how much the policy prefers the chosen answer.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NLLReduction = Literal["token", "sequence", "prompt+completion"]

Sides = tuple[Tensor, Tensor]  # of the chosen and of the rejected answers, [B] each

ALMOST_CERTAIN = -1e-7  # a mean log-prob above this is taken for this: the odds of a certain answer are infinite


class PreferenceOutput(NamedTuple):
    """Losses of pairs, and detached rewards: beta times the log-ratio to the reference, or (simpo, orpo) the mean."""

    losses: Tensor  # [B]
    chosen_rewards: Tensor  # [B]
    rejected_rewards: Tensor  # [B]


def sigmoid(margins_B: Tensor, beta: float) -> Tensor:
    """DPO: -log sigma(beta * margin) (arXiv 2305.18290 eq. 7)."""
    return -F.logsigmoid(beta * margins_B)


def cdpo(margins_B: Tensor, beta: float, label_smoothing: float | Tensor) -> Tensor:
    """Conservative DPO: labels are wrong with probability e (Mitchell 2023); least at beta * margin = logit(1 - e)."""
    return (1 - label_smoothing) * sigmoid(margins_B, beta) + label_smoothing * sigmoid(-margins_B, beta)


def robust(margins_B: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO: unbiased if labels are flipped with probability e; unbounded below (arXiv 2403.00409)."""
    right_B, flipped_B = sigmoid(margins_B, beta), sigmoid(-margins_B, beta)
    return ((1 - label_smoothing) * right_B - label_smoothing * flipped_B) / (1 - 2 * label_smoothing)


def hinge(margins_B: Tensor, beta: float) -> Tensor:
    """SLiC: max(0, 1 - beta * margin), without gradient at the kink and beyond (arXiv 2305.10425)."""
    return F.relu(1 - beta * margins_B)


def ipo(margins_B: Tensor, beta: float) -> Tensor:
    """IPO: (margin - 1 / (2 beta))^2 (arXiv 2310.12036 eq. 17)."""
    return (margins_B - 1 / (2 * beta)) ** 2


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, without cancellation at either end; x is at most `ALMOST_CERTAIN`."""
    x = x.clamp(max=ALMOST_CERTAIN)
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def log_odds(means_B: Tensor) -> Tensor:
    """log(p / (1 - p)) of mean log-probs log p (arXiv 2403.07691 eq. 4)."""
    return means_B - log1mexp(means_B)


class _Kind(NamedTuple):
    """What a loss is made of. ``compares``: margins are differences of sums, means per token or log-odds of means."""

    equation: Callable[..., Tensor]
    compares: Literal["sums", "means", "odds"] = "sums"
    reference: bool = True
    logistic: bool = True
    takes: tuple[str, ...] = ()  # options that not every loss has a use for


_KINDS = {
    "sigmoid": _Kind(sigmoid),
    "cdpo": _Kind(cdpo, takes=("label_smoothing",)),
    "robust": _Kind(robust, takes=("label_smoothing",)),
    "hinge": _Kind(hinge, logistic=False),
    "ipo": _Kind(ipo, "means", logistic=False, takes=("length_normalize",)),
    "sigmoid_norm": _Kind(sigmoid, "means"),
    "simpo": _Kind(sigmoid, "means", reference=False, takes=("gamma",)),
    "orpo": _Kind(sigmoid, "odds", reference=False, logistic=False, takes=("orpo_lambda",)),
}
LOSSES = tuple(_KINDS)  # the names that preference_loss knows


def needs_reference(loss: str) -> bool:
    """Whether a loss compares the policy with a reference."""
    return _kind(loss).reference


def uses_margins(loss: str) -> bool:
    """Whether a loss can take margins that came with the data."""
    return _kind(loss).logistic


def per_token(loss: str, length_normalize: bool = True) -> bool:
    """Whether a loss compares means per token rather than sums."""
    return _kind(loss).compares != "sums" and (length_normalize or "length_normalize" not in _kind(loss).takes)


def nll_weight(loss: str, rpo_alpha: float = 0.0) -> float:
    """How much of the chosen NLL a loss contains beside its term of pairs."""
    return rpo_alpha + (loss == "orpo")


def require_used(loss: str, **options: object) -> None:
    """Refuse options of `preference_loss` that are set, to something else than their defaults, and would be ignored.

    Raises:
        ValueError: naming the losses that have a use for the option.
    """
    for name in sorted(options.keys() & {name for kind in _KINDS.values() for name in kind.takes}):
        default = inspect.signature(preference_loss).parameters[name].default
        if options[name] != default and name not in _kind(loss).takes:
            users = " or ".join(user for user, kind in _KINDS.items() if name in kind.takes)
            raise ValueError(f"the loss '{loss}' ignores {name} {options[name]}: leave it out, or choose {users}")
    if options.get("reference_free") and not needs_reference(loss):
        raise ValueError(f"the loss '{loss}' compares with no reference anyway: leave out reference_free")


def preference_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor | None = None,
    ref_rejected_logps: Tensor | None = None,
    chosen_lengths: Tensor | None = None,
    rejected_lengths: Tensor | None = None,
    *,
    loss: str,
    beta: float,
    label_smoothing: float = 0.0,
    gamma: float = 1.0,
    orpo_lambda: float = 0.1,
    rpo_alpha: float = 0.0,
    length_normalize: bool = True,
    reference_free: bool = False,
    margins: Tensor | None = None,
    nll: Tensor | None = None,
    smoothing: Tensor | None = None,
) -> PreferenceOutput:
    """The loss of each pair, and the rewards that the policy stands for.

    Args:
        chosen_logps: sums of the policy's log-probs over the chosen answers, nats [B].
        rejected_logps: over the rejected ones [B].
        ref_chosen_logps: the reference's, constants [B]; simpo and orpo have no use for them.
        ref_rejected_logps: likewise [B].
        chosen_lengths: tokens of the chosen answers [B], for means; a mean over no token is 0.
        rejected_lengths: of the rejected ones [B].
        loss: one of `LOSSES`.
        beta: inverse temperature of the implicit reward; in orpo it scales the rewards and no loss.
        label_smoothing: e of cdpo and robust, in [0, 0.5).
        gamma: of simpo: -log sigma(beta * (mean - mean') - gamma) (arXiv 2405.14734 eq. 6).
        orpo_lambda: of orpo: NLL - lambda * log sigma(log odds - log odds') (arXiv 2403.07691 eqs. 6 and 7).
        rpo_alpha: adds this much of the chosen NLL (arXiv 2404.19733 eq. 1).
        length_normalize: of ipo: compares means per token, as its authors meant it; false compares sums.
        reference_free: the reference finds every answer equally likely.
        margins: by which the chosen reward should win [B]; subtracted from what a logistic loss sees.
        nll: `chosen_nll` of each pair [B]; left out, its token mean over these very pairs.
        smoothing: e of each pair [B], in [0, 1], in place of label_smoothing; of cdpo.

    Raises:
        ValueError: something that the loss needs is missing, or it would ignore an option.
    """
    kind = _kind(loss)
    _check(loss, beta, label_smoothing, margins)
    if smoothing is not None and (loss != "cdpo" or label_smoothing):
        raise ValueError("labels that are soft pair by pair are for the loss 'cdpo', without a label_smoothing of all")
    sides = _wide(chosen_logps), _wide(rejected_logps)
    if kind.reference and not reference_free:
        sides = _relative(loss, sides, ref_chosen_logps, ref_rejected_logps)
    compared = sides
    if per_token(loss, length_normalize):
        compared = _means(loss, sides, chosen_lengths, rejected_lengths)
    if kind.compares == "odds":
        losses_B = orpo_lambda * kind.equation(log_odds(compared[0]) - log_odds(compared[1]), 1.0)
    else:
        shift = (gamma if loss == "simpo" else 0.0) + (0.0 if margins is None else margins)
        flipped = label_smoothing if smoothing is None else smoothing
        options = [flipped] if "label_smoothing" in kind.takes else []
        losses_B = kind.equation(compared[0] - compared[1] - shift / beta, beta, *options)
    if weight := nll_weight(loss, rpo_alpha):
        losses_B = losses_B + weight * (chosen_nll(chosen_logps, chosen_lengths) if nll is None else nll)
    chosen_B, rejected_B = sides if kind.reference else compared
    return PreferenceOutput(losses_B, beta * chosen_B.detach(), beta * rejected_B.detach())


def _relative(loss: str, sides: Sides, ref_chosen: Tensor | None, ref_rejected: Tensor | None) -> Sides:
    """Log-ratios to the reference."""
    if ref_chosen is None or ref_rejected is None:
        raise ValueError(f"the loss '{loss}' needs ref_chosen_logps and ref_rejected_logps, or reference_free")
    return sides[0] - ref_chosen.detach(), sides[1] - ref_rejected.detach()


def _means(loss: str, sides: Sides, chosen_lengths: Tensor | None, rejected_lengths: Tensor | None) -> Sides:
    """Sums as means per token."""
    if chosen_lengths is None or rejected_lengths is None:
        raise ValueError(f"the loss '{loss}' takes means per token: give chosen_lengths and rejected_lengths")
    return sides[0] / chosen_lengths.clamp(min=1), sides[1] / rejected_lengths.clamp(min=1)


def chosen_nll(
    logps: Tensor, lengths: Tensor | None, reduction: NLLReduction = "token", mean_length: Tensor | float | None = None
) -> Tensor:
    """The chosen NLL in terms of pairs [B], whose mean over pairs is the NLL that was asked for.

    A token mean is divided by a number of tokens, a loss of pairs by their weights w. Both are one mean over pairs if
    each -log p is divided by the mean length sum(w n) / sum(w): exactly, if that is of the whole optimizer step.

    Args:
        logps: sums over the chosen answers [B]; for ``prompt+completion`` over the whole chosen rows.
        lengths: over how many tokens each of them is [B].
        reduction: ``token``: over all tokens alike (TRL's "sft"). ``sequence``: the mean of each pair's mean (arXiv
            2404.19733 eq. 1). ``prompt+completion``: ``token``, prompts included (TRL's ORPO).
        mean_length: of the token means; left out, the mean of `lengths`.
    """
    if lengths is None:
        raise ValueError("the chosen NLL is a mean over tokens: give chosen_lengths, or nll as chosen_nll makes it")
    sums_B = _wide(logps)
    if reduction == "sequence":
        return -sums_B / lengths.clamp(min=1)
    return -sums_B / (lengths.to(sums_B.dtype).mean() if mean_length is None else mean_length)


def reward_model_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, margins: Tensor | None = None, center_coef: float = 0.0
) -> Tensor:
    """-log sigma(r - r' - margin) + center_coef * (r + r')^2, [B] (arXiv 2307.09288 eq. 2; arXiv 2312.09244)."""
    chosen_B, rejected_B = _wide(chosen_rewards), _wide(rejected_rewards)
    losses_B = sigmoid(chosen_B - rejected_B - (0.0 if margins is None else margins), 1.0)
    return losses_B + center_coef * (chosen_B + rejected_B) ** 2


def kto_loss(
    logps: Tensor,
    ref_logps: Tensor,
    labels: Tensor,
    kl: Tensor | float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO: w * (1 - sigma(+-beta * (log-ratio - z0))), + if desirable, of labelled answers [R] (arXiv 2402.01306).

    Args:
        logps: sums of the policy's log-probs over the answers, nats [R].
        ref_logps: the reference's [R].
        labels: whether an answer is desirable [R], bool or 0 and 1.
        kl: mean log-ratio of answers to prompts that are not theirs, over all ranks; z0 is this or 0, a constant.
        beta: how fast the value of an answer saturates.
        desirable_weight: w of desirable answers.
        undesirable_weight: w of the others.
    """
    ratios_R = _wide(logps) - ref_logps.detach()
    desirable_R, baseline = labels.to(ratios_R), torch.as_tensor(kl).detach().to(ratios_R).clamp(min=0)
    values_R = torch.sigmoid(beta * (2 * desirable_R - 1) * (ratios_R - baseline))
    return (desirable_weight * desirable_R + undesirable_weight * (1 - desirable_R)) * (1 - values_R)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _kind(loss: str) -> _Kind:
    if loss not in _KINDS:
        raise ValueError(f"'{loss}' is no loss of pairs: {', '.join(LOSSES)}; kto, of single answers, is kto_loss")
    return _KINDS[loss]


def _check(loss: str, beta: float, label_smoothing: float, margins: Tensor | None) -> None:
    if beta <= 0 or not 0 <= label_smoothing < 0.5:
        raise ValueError(f"beta ({beta}) must be above 0, label_smoothing ({label_smoothing}) in [0, 0.5)")
    require_used(loss, label_smoothing=label_smoothing)
    if margins is not None and not _KINDS[loss].logistic:
        raise ValueError(f"the loss '{loss}' ignores margins: {', '.join(filter(uses_margins, LOSSES))} do not")
