"""The whole pipeline of SuRe (arXiv 2404.13081) on questions with passages, in three ways that write the same texts.

    python benchmarks/sure.py [--quick] [--questions-file nq.jsonl] [--model builtin:smollm2]

    one by one       a prompt at a time, nothing shared: the official code and FlashRAG
    stages batched   all prompts that can be written together, padded, by `generate`; nothing shared
    ours             the same prompts; what they begin with is computed once

The table counts tokens with their padding, the lines below it without; Records of
all ways are the same, or no ratio is printed. Answers with and without passages are written too, and verdicts parsed. A
model with random weights proposes nothing that could be read: there the second candidate is drawn from the prompt of
the answer, in place of a prompt as long. A file has our form, DPR's or FlashRAG's (docs/sure.md); without one the
passages are made up, about 110 words each.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, use_threads
from benchmarks.thinkers import fill_in, prefilled, size, table
from datamodules.records import read_records
from lm.backbones.backbone import PretrainedBackbone, ScratchBackbone
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.engine import Engine
from lm.generation.plain import PlainEngine
from lm.generation.rounds import run_rounds
from lm.tokens.chat import ChatFormat
from lm.tokens.prompt_styles import StyledRenderer
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer
from modules.sure.asking import Asking
from modules.sure.course import QuestionCourse
from modules.sure.pipeline import Lengths, Pipeline
from text.qa.prompts import QAPrompts
from text.qa.qa_records import ContextRecord, QAQuestion
from text.qa.sure_records import SuReRecord
from worlds.looked_up import LookedUp

DRAWN = Decoding(temperature=1.0)


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_grad_enabled(False)
    use_threads(options)
    questions = read(options.questions_file, options.questions, options.passages)
    template = QAPrompts(style=options.style, passage_order="best_last")
    model, tokenizer = built(options, questions, template)
    styled = StyledRenderer(ChatFormat().renderer(tokenizer), template)
    how = Pipeline(
        candidates="prompt" if options.model else "sampled", pool=1, lengths=Lengths(summary=options.summary)
    )
    engines: dict[str, Engine] = {
        "one by one": PlainEngine(model, tokenizer, max_batch_tokens=1),
        "stages batched": PlainEngine(model, tokenizer, options.max_batch_tokens),
        "ours": CacheEngine(model, tokenizer, options.max_batch_tokens),
    }
    ways = {name: partial(answer, how, styled, questions, engine) for name, engine in engines.items()}
    seconds, tokens, records = prefilled(model, ways, options.rounds)
    first, *others = records.values()
    assert all(other == first for other in others), "the ways did not write the same texts"
    stages = sum(len(record.trace) for record in first)
    judged = sum(bool(record.comparisons) for record in first)
    print(f"{len(first)} questions, {judged} with verdicts, {stages:,} prompts; {size(model)}")
    Console().print(table(seconds, tokens))
    exact = {name: engine.prefilled // options.rounds for name, engine in engines.items()}
    told = ", ".join(f"{name} {count:,}" for name, count in exact.items())
    print(f"tokens of prompts computed, without padding: {told}: {exact['one by one'] / exact['ours']:.2f}x fewer")


def answer(how: Pipeline, styled: StyledRenderer, questions: list[QAQuestion], engine: Engine) -> list[SuReRecord]:
    """The records of all questions."""
    asking = [Asking(how, styled, engine.context, DRAWN) for _ in questions]
    courses = [
        QuestionCourse(ask, question, str(number)).run()
        for number, (ask, question) in enumerate(zip(asking, questions, strict=True))
    ]
    return run_rounds(courses, engine, DRAWN)


def read(file: str | None, count: int, passages: int) -> list[QAQuestion]:
    """Questions of a file, or made up: short facts among words, so that passages are as long as real ones."""
    if file is not None:
        found = [one.record for one in read_records(file, QAQuestion, "test")[:count]]
        return [one.model_copy(update={"contexts": (one.contexts or [])[:passages]}) for one in found]
    rng = Random(0)
    filler = "the of and in to was is for on as with by at from his that it were which are".split()  # noqa: SIM905
    made = []
    for record in LookedUp(questions=count, test_facts=passages).records("test"):
        contexts = [
            ContextRecord.model_validate(one | {"text": f"{one['text']} {' '.join(rng.choices(filler, k=110))}."})
            for one in record["contexts"]
        ]
        made.append(QAQuestion(question=record["question"], answers=record["answers"], contexts=contexts))
    return made


def built(options: argparse.Namespace, questions: list[QAQuestion], template: QAPrompts) -> tuple[Any, Any]:
    """A model and its tokenizer: a real one, or random weights and a vocabulary of the questions."""
    if options.model:
        backbone = PretrainedBackbone(options.model)
        tokenizer = PretrainedTokenizer(str(backbone.tokenizer_name)).build()
        return backbone.build(tokenizer).eval(), tokenizer
    texts = [template.answer(question.question, ()).text for question in questions]
    texts += [context.text for question in questions for context in question.contexts or ()]
    tokenizer = BPETokenizer(vocab_size=8000).build(texts)
    torch.manual_seed(0)
    config = {
        "hidden_size": options.width,
        "intermediate_size": options.width * 43 // 16,
        "num_hidden_layers": options.layers,
        "num_attention_heads": max(1, options.width // 64),
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,  # so that likeliest tokens stand apart, and no rounding can swap them
    }
    return ScratchBackbone("llama", config).build(tokenizer).eval(), tokenizer


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model: only to see that it runs")
    parser.add_argument("--questions-file", help="questions with passages (.jsonl)")
    parser.add_argument("--questions", type=int, help="default 32, or 2 with --quick")
    parser.add_argument("--passages", type=int, help="of a question; default 10, or 4 with --quick")
    parser.add_argument("--summary", type=int, help="tokens of a summary; default 60, or 8 with --quick")
    parser.add_argument("--width", type=int, help="of a model with random weights; default 256, or 64 with --quick")
    parser.add_argument("--layers", type=int, help="default 8, or 2 with --quick")
    parser.add_argument("--style", default="plain", help="plain: instructions, as the paper's; or few_shot, chat")
    parser.add_argument("--model", help="a model to use in its place, such as builtin:smollm2")
    parser.add_argument("--max-batch-tokens", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=1)
    sizes = {"questions": (32, 2), "passages": (10, 4), "summary": (60, 8), "width": (256, 64), "layers": (8, 2)}
    add_threads(parser)
    return fill_in(parser.parse_args(), sizes)


if __name__ == "__main__":
    main()
