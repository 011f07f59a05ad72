"""A step of SELF-JUDGE and of GRPO beside the usual way: judging as forests, learning from k answers to one prompt.

    python benchmarks/self_judge.py             minutes on one core
    python benchmarks/self_judge.py --quick     does it work here?

- judge: both orders of pairs under four principles, one forest against one padded prompt for every question (length
  sorted, batches of ``--rows``; the head at the last position alone). Scores of all pairs are equal before a ratio is
  printed.
- update: forward and backward of GRPO's loss on k = 8 answers to each prompt, one tree a prompt against padded rows of
  prompt and answer, whose head reads the answers alone. Log-probs and gradients are equal before a ratio is printed.
  Each way runs in a process of its own for its peak of memory.

Weights are from scratch: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import Tensor

from benchmarks.clock import add_threads, now, unit, use_threads
from benchmarks.peak_memory import peak_kibibytes
from lm.backbones.backbone import ScratchBackbone
from lm.forests.answer_forests import answer_forest
from lm.judging.comparing import Contest, compare
from lm.judging.label_tokens import label_tokens
from lm.judging.language_judge import LanguageJudge
from lm.judging.requests import JudgeRequest, Verdict
from lm.scoring.logprobs import forest_logprobs
from lm.scoring.model_scores import ModelScores
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer
from losses.policy_gradient import clipped_surrogate
from metrics.judging.two_orders import TwoOrders
from modules.base.judges_pairs import SILENT
from text.judging.pair_template import PairTemplate

CONFIG = {"intermediate_size": 768, "num_attention_heads": 4, "max_position_embeddings": 4096}
PRINCIPLES = {name: f"Judge how {name} each answer is." for name in ("helpful", "honest", "obedient", "truthful")}
LARGEST_GAP = 1e-4  # of log-probs and probabilities in float32


class Padded:
    """The usual judge: one padded prompt for every question, in batches of like length."""

    def __init__(self, forests: LanguageJudge, rows: int):
        self.forests, self.rows = forests, rows
        self.labels = label_tokens(forests.renderer, forests.template)  # type: ignore[arg-type]

    def judge(self, requests: list[JudgeRequest]) -> list[Verdict]:
        """Probabilities of the labels among all tokens."""
        model = self.forests.scores.model
        stems = [[*case.prompt, *self.labels.opening] for case in self.forests.cases(requests)]
        found: dict[int, Verdict] = {}
        order = sorted(range(len(stems)), key=lambda q: -len(stems[q]))
        for begin in range(0, len(order), self.rows):
            part = order[begin : begin + self.rows]
            width = max(len(stems[q]) for q in part)
            ids = torch.tensor([[0] * (width - len(stems[q])) + stems[q] for q in part])
            mask = torch.tensor([[0] * (width - len(stems[q])) + [1] * len(stems[q]) for q in part])
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            with torch.no_grad():
                logits = model(ids, attention_mask=mask, position_ids=positions, logits_to_keep=1).logits[:, -1]
            for q, both in zip(part, logits.double().softmax(-1)[:, list(self.labels.labels)].tolist(), strict=True):
                mass = sum(both)
                found[q] = Verdict(preference="A", probabilities=(both[0] / mass, both[1] / mass), mass=mass)
        return [found[q] for q in range(len(stems))]


def judging(options: argparse.Namespace) -> None:
    """Print the row of judging."""
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(400)]

    def text(tokens: int) -> str:
        return " ".join(rng.choice(words, tokens))

    tokenizer = BPETokenizer(vocab_size=2000).build([text(400) + " A B" for _ in range(50)])
    template = PairTemplate(criteria=PRINCIPLES)
    judge = LanguageJudge(ModelScores(model_of(options, tokenizer)), ChatFormat().renderer(tokenizer), template, SILENT)
    criteria = tuple(map(template.criterion, PRINCIPLES))
    lengths = (options.context // 2, options.answer // 2)  # a word is about two tokens
    contests = [
        Contest(str(n), text(lengths[0]), (text(lengths[1]), text(lengths[1])), criteria) for n in range(options.pairs)
    ]
    ways: dict[str, Any] = {"forest": judge, "padded": Padded(judge, options.rows)}
    compare(judge, contests[:1], TwoOrders())  # the first forest of a model is checked
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        found = {}
        for name, way in ways.items():
            began = now()
            found[name] = compare(way, contests, TwoOrders())
            seconds[name].append(now() - began)
        pairs = [(one.decided, other.decided) for one, other in zip(found["forest"], found["padded"], strict=True)]
        gap = max(abs(a.first - b.first) + abs(a.second - b.second) for a, b in pairs)
        if gap > LARGEST_GAP:
            raise AssertionError(f"scores differ by {gap:.1e}")
    tell(f"judge {len(contests)} pairs, 2 orders, 4 principles", seconds, gap)


def model_of(options: argparse.Namespace, tokenizer: Any) -> Any:
    """A model from scratch."""
    torch.manual_seed(0)
    sizes = CONFIG | {"hidden_size": options.width, "num_hidden_layers": options.layers}
    return ScratchBackbone("llama", sizes).build(tokenizer).eval()


def answers_of(options: argparse.Namespace) -> tuple[list[list[int]], list[list[list[int]]], Tensor]:
    """Prompts, answers to each, and advantages."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(5, 250, options.prompt).tolist() for _ in range(options.prompts)]
    lengths = rng.integers(options.answer // 2, options.answer + 1, (options.prompts, options.samples))
    answers = [[rng.integers(5, 250, length).tolist() for length in own] for own in lengths]
    return prompts, answers, torch.tensor(rng.standard_normal(lengths.size), dtype=torch.float32)


def by_forest(model: Any, prompts: list, answers: list) -> Tensor:
    """Log-probs of all tokens of all answers, one tree a prompt."""
    paths = [(np.array(p), np.array(a)) for p, own in zip(prompts, answers, strict=True) for a in own]
    forest = answer_forest(paths, [number for number, own in enumerate(answers) for _ in own])
    return forest_logprobs(model, forest)[forest.path_targets]


def by_rows(model: Any, prompts: list, answers: list) -> Tensor:
    """The same by padded rows, as trainers do it: prompts padded on the left, answers on the right."""
    rows = [(p, a) for p, own in zip(prompts, answers, strict=True) for a in own]
    left, right = max(len(p) for p, _ in rows), max(len(a) for _, a in rows)
    ids = torch.tensor([[0] * (left - len(p)) + p + a + [0] * (right - len(a)) for p, a in rows])
    mask = torch.tensor([[0] * (left - len(p)) + [1] * len(p + a) + [0] * (right - len(a)) for p, a in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(ids, attention_mask=mask, position_ids=positions, logits_to_keep=right + 1).logits[:, :-1]
    logprobs = logits.log_softmax(-1).gather(-1, ids[:, left:, None])[..., 0]
    return logprobs[mask[:, left:].bool()]


WAYS: dict[str, Callable[..., Tensor]] = {"forest": by_forest, "padded": by_rows}


def update(options: argparse.Namespace, way: str) -> dict[str, Any]:
    """Seconds of each round, the peak of memory, the log-probs and some gradients."""
    model = model_of(options, BPETokenizer(vocab_size=2000).build(["a b c d e f"]))
    prompts, answers, advantages = answers_of(options)
    lengths = torch.tensor([len(answer) for own in answers for answer in own])
    WAYS[way](model, prompts[:1], [answers[0][:2]])  # the first forest of a model is checked
    seconds = []
    for _ in range(options.rounds + 1):
        model.zero_grad()
        began = now()
        logprobs = WAYS[way](model, prompts, answers)
        losses = clipped_surrogate(logprobs, logprobs.detach(), advantages.repeat_interleave(lengths))
        losses.mean().backward()
        seconds.append(now() - began)
    gradients = [p.grad.flatten()[:50].tolist() for _, p in sorted(model.named_parameters())]
    told = {"logprobs": logprobs.tolist(), "gradients": gradients}
    return {"seconds": seconds[1:], "peak": peak_kibibytes(), **told}


def updating(options: argparse.Namespace) -> None:
    """Print the row of learning."""
    found = {}
    for way in WAYS:
        call = [sys.executable, __file__, "--way", way, "--options", json.dumps(vars(options))]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    one, other = (np.array(found[way]["logprobs"]) for way in WAYS)
    gap = float(np.abs(one - other).max())
    slopes = [np.concatenate(found[way]["gradients"]) for way in WAYS]
    slope_gap = float(np.abs(slopes[0] - slopes[1]).max() / np.abs(slopes[1]).max())
    if max(gap, slope_gap) > LARGEST_GAP:
        raise AssertionError(f"log-probs differ by {gap:.1e}, gradients by {slope_gap:.1e} of the largest")
    peaks = [found[way]["peak"] / 2**10 for way in WAYS]
    memory = f"; peak {peaks[0]:.0f} MiB against {peaks[1]:.0f}, {peaks[0] / peaks[1]:.2f}"
    name = f"update of {options.samples} answers to {options.prompts} prompts of {options.prompt} tokens{memory}"
    tell(name, {way: found[way]["seconds"] for way in WAYS}, gap)


def tell(name: str, seconds: dict[str, list[float]], gap: float) -> None:
    """One row: medians and their ratio."""
    ours, usual = (statistics.median(seconds[way]) for way in ("forest", "padded"))
    print(f"| {name} | {ours:.3f} | {usual:.3f} | {usual / ours:.2f} | {gap:.0e} |", flush=True)


def main() -> None:
    """Print the table; with ``--way`` measure one way of learning, for a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, few pairs, one round")
    parser.add_argument("--rounds", type=int, help="default 3, or 1 with --quick")
    parser.add_argument("--rows", type=int, default=8, help="padded prompts of a batch")
    parser.add_argument("--way", choices=[*WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--options", help=argparse.SUPPRESS)
    add_threads(parser)
    options = parser.parse_args()
    way = options.way
    if way:
        vars(options).update(json.loads(options.options))
    use_threads(options)
    if way:
        print(json.dumps(update(options, way)))
        return
    sizes = {"width": 64, "layers": 2, "pairs": 2, "prompts": 2} if options.quick else {}
    usual = {"width": 256, "layers": 6, "pairs": 8, "prompts": 4, "context": 300, "answer": 150}
    vars(options).update(usual | {"samples": 8, "prompt": 256} | sizes)
    options.rounds = options.rounds or (1 if options.quick else 3)
    print(f"torch {torch.__version__}, {unit()}, {options.layers} layers of {options.width}, {options.rounds} rounds")
    print("| what | forest, s | padded, s | ratio | largest gap |")
    print("|---|---|---|---|---|")
    judging(options)
    updating(options)


if __name__ == "__main__":
    main()
