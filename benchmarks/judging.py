"""Verdicts per second: forests of questions beside one padded prompt per question through `generate`.

Real responses of four models to instructions of Vicuna Bench are scored under several rubrics, and compared in both
orders. Ours reads verdicts off one forest; transformers' `generate` writes the first token of a verdict after each
prompt, padded on the left, prompts of like length together. Both use the same weights, from scratch: speed does not
depend on them. Before a ratio is printed, all probabilities and verdicts of the two have been found equal.

    python benchmarks/judging.py             minutes on one core
    python benchmarks/judging.py --quick     does it work here?
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import PreTrainedTokenizerBase

from benchmarks.clock import add_threads, now, unit, use_threads
from datamodules.records import read_records
from lm.backbones.backbone import ScratchBackbone
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import JudgeRequest, Verdict
from lm.scoring.model_scores import ModelScores
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer
from text.judging.judge_prompts import JudgeTemplate
from text.judging.judgments import Judgment

SOURCE = Path(__file__).parents[2] / "shared/data/evaluator/vicuna_eval.jsonl"
RUBRICS = 4  # that every response is judged by
LARGEST_GAP = 1e-4  # between probabilities of the two, in float32
CONFIG = {"intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4, "max_position_embeddings": 8192}


def questions(instructions: int) -> tuple[list[JudgeRequest], list[JudgeRequest]]:
    """Every response under every rubric, and pairs of responses under them in both orders."""
    records = [found.record for found in read_records(str(SOURCE), Judgment)]
    by_instruction: dict[str, list[Judgment]] = {}
    for record in records:
        by_instruction.setdefault(record.instruction, []).append(record)
    rubrics = list({record.rubric.criteria: record.rubric for record in records}.values())[:RUBRICS]
    direct, pairs = [], []
    for group in list(by_instruction.values())[:instructions]:
        said = [record.responses[0] for record in group]
        for rubric in rubrics:
            shared = {"instruction": group[0].instruction, "rubric": rubric, "reference": group[0].reference_answer}
            direct += [JudgeRequest("q", responses=(one,), **shared) for one in said]  # type: ignore[arg-type]
            for one, other in zip(said[::2], said[1::2], strict=True):
                orders = (one, other), (other, one)
                pairs += [JudgeRequest("q", responses=both, **shared) for both in orders]  # type: ignore[arg-type]
    return direct, pairs


def through_generate(judge: LanguageJudge, requests: list[JudgeRequest], rows: int) -> list[list[float]]:
    """Probabilities of verdicts from the scores of the first token that `generate` writes, prompt by prompt."""
    cases = judge.cases(requests)
    stems, words = judge.stems(cases)
    found: list[list[float]] = [[] for _ in cases]
    order = sorted(range(len(stems)), key=lambda q: -len(stems[q]))
    for begin in range(0, len(order), rows):
        part = order[begin : begin + rows]
        width = max(len(stems[q]) for q in part)
        ids = torch.tensor([[0] * (width - len(stems[q])) + stems[q] for q in part], device=judge.scores.device)
        mask = torch.tensor([[0] * (width - len(stems[q])) + [1] * len(stems[q]) for q in part], device=ids.device)
        options = {"max_new_tokens": 1, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        scores = judge.scores.model.generate(ids, attention_mask=mask, pad_token_id=0, **options).scores[0]
        for row, q in enumerate(part):
            found[q] = scores[row, words[q]].double().softmax(0).tolist()
    return found


def require_equal(verdicts: list[Verdict], theirs: list[list[float]]) -> float:
    """Refuse to compare the speed of two that come to different verdicts; returns the largest gap."""
    gap = 0.0
    for verdict, expected in zip(verdicts, theirs, strict=True):
        ours = verdict.probabilities
        gap = max(gap, *(abs(a - b) for a, b in zip(ours, expected, strict=True)))
        best, second = sorted(expected, reverse=True)[:2]
        if best - second > 2 * LARGEST_GAP and ours.index(max(ours)) != expected.index(best):
            raise AssertionError(f"verdicts differ: {ours} and {expected}")
    if gap > LARGEST_GAP:
        raise AssertionError(f"probabilities differ by {gap:.1e}")
    return gap


def build(tokenizer: PreTrainedTokenizerBase, width: int, device: str) -> LanguageJudge:
    """A judge from scratch, the rubric last in its questions."""
    torch.manual_seed(0)
    model = ScratchBackbone("llama", CONFIG | {"hidden_size": width}).build(tokenizer).to(device).eval()
    how = Judging(verdicts="expected", feedback=False)
    renderer = ChatFormat(system_separator="\n\n").renderer(tokenizer)
    return LanguageJudge(ModelScores(model), renderer, JudgeTemplate(rubric_last=True), how)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few questions, a tiny model, one round")
    parser.add_argument("--rounds", type=int, help="default 3, or 1 with --quick")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=8, help="prompts of a batch of `generate`")
    add_threads(parser)
    arguments = parser.parse_args()
    use_threads(arguments)
    instructions, rounds, width = (2, arguments.rounds or 1, 64) if arguments.quick else (8, arguments.rounds or 3, 256)
    texts = [text for found in read_records(str(SOURCE), Judgment) for text in found.record.responses]
    judge = build(BPETokenizer(vocab_size=4000).build(texts), width, arguments.device)
    print(f"torch {torch.__version__}, {unit()}, {arguments.device}, batches of {arguments.rows}")
    print("| questions | number | forests, verdicts/s | generate, verdicts/s | ratio | largest gap |")
    print("|---|---|---|---|---|---|")
    direct, pairs = questions(instructions)
    for name, requests in (
        ("direct, 4 rubrics", direct),
        ("pairs, 4 rubrics, both orders", pairs),
        ("all", direct + pairs),
    ):
        judge.judge(requests[:4])  # the first forest of a model is checked
        seconds: dict[str, list[float]] = {"forests": [], "generate": []}
        for _ in range(rounds):
            began = now()
            verdicts = judge.judge(requests)
            middle = now()
            theirs = through_generate(judge, requests, arguments.rows)
            seconds["forests"].append(middle - began)
            seconds["generate"].append(now() - middle)
            gap = require_equal(verdicts, theirs)
        ours, other = (len(requests) / statistics.median(seconds[way]) for way in ("forests", "generate"))
        print(f"| {name} | {len(requests)} | {ours:.1f} | {other:.1f} | {ours / other:.1f} | {gap:.0e} |", flush=True)


if __name__ == "__main__":
    main()
