"""Co-supervision beside the official way: a training step, and answers that retrieve while they are written.

    OMP_NUM_THREADS=1 python benchmarks/co_supervision.py [--quick] [--only step memory writing encoding] [--repeats 3]

step: 8 answers and 16 passages in one forest, against padded rows in two forwards with whole logits. Loss and gradients
agree first. memory: the same with 16 to 256 passages, at once and with the gradient cache, each in a process of its
own. writing: 32 questions with look-ups, against encoding the context anew after each look-up, one question at a time
(as the official code does) and batched. Some answers are equal in float64 first; of those in float32 it is told how
many differ. encoding: the index of a corpus from its texts, against sentence-transformers at its best batch size.
Vectors agree first. The fastest of the repeats counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.clock import add_threads, fastest, unit, use_threads
from benchmarks.peak_memory import peak_kibibytes
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import WordTokenizer
from lm.forests.cited_batch import CitedBatch
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.retrieval.index import VectorIndex
from lm.steps.step_mean import StepMean
from lm.tokens.cited_table import CitedTable, PassageTokens, read_rows
from lm.tokens.cited_tokens import CitingTokens, Vocabulary
from modules.co_supervision.co_supervision import CoSupervision
from modules.co_supervision.look_ups import Asked, Hit
from modules.co_supervision.writer import Citing, Writer
from text.citing.cited_records import CitedAnswer
from text.records import Located
from text.retrieval.tasks import Passage

CONSOLE = Console(width=120)
PARTS = ["step", "memory", "writing", "encoding"]
WORDS = [f"w{n}" for n in range(4000)]
MORE = [f"x{n}" for n in range(28000)]  # with which a step has the vocabulary of Llama-2
SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
QUESTION, PASSAGE, ANSWER = 16, 96, 24  # words
USED = 40  # words that answers are written with
AGREE = 1e-4  # relative, float32
EXACT = 4  # answers that are compared in float64 first


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one repeat: only to see that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, help="default 3, or 1 with --quick")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)  # one way's process: sizes, passages, way
    add_threads(parser)
    options = parser.parse_args()
    use_threads(options)
    if options.alone:
        sizes, passages, way = options.alone
        step_alone(TINY if sizes == "tiny" else SIZES, int(passages), way)
        return
    sizes, repeats = TINY if options.quick else SIZES, options.repeats or (1 if options.quick else 3)
    if "step" in options.only:
        steps(sizes, repeats)
    if "memory" in options.only:
        memory("tiny" if options.quick else "whole", [8] if options.quick else [16, 64, 256])
    if "writing" in options.only:
        writing(sizes, repeats, *((4, 240) if options.quick else (32, 480)))
    if "encoding" in options.only:
        encoding(sizes, repeats, 20 if options.quick else 500)


# --- a training step --------------------------------------------------------------------------------------------------


def vocabulary(words: Sequence[str]) -> Vocabulary:
    """Made-up words and the control tokens."""
    tokenizer, tokens = WordTokenizer(max_words=40_000, eos_token="[EOS]", words=tuple(words)).build([]), CitingTokens()
    tokens.add_to(tokenizer)
    return Vocabulary(tokenizer, tokens)


def draw(generator: torch.Generator, count: int) -> str:
    """So many words, about: lengths differ by up to a half."""
    count = int(count * (0.75 + torch.rand(1, generator=generator).item() / 2))
    return " ".join(WORDS[n] for n in torch.randint(len(WORDS), (count,), generator=generator).tolist())


def batch_of(by: Vocabulary, passages: int, module: CoSupervision, answers: int = 8) -> tuple[CitedTable, CitedBatch]:
    """Answers with one citation each; the other passages are hard negatives."""
    generator = torch.Generator().manual_seed(0)
    texts = [draw(generator, PASSAGE) for _ in range(passages)]
    hard = max(0, passages - answers) // answers
    records = [
        CitedAnswer.model_validate(
            {"id": str(n), "question": draw(generator, QUESTION)}
            | {"segments": [{"retrieve": str(n), "text": draw(generator, ANSWER)}]}
            | {"hard_negatives": [str(answers + n * hard + m) for m in range(hard)]}
        )
        for n in range(answers)
    ]
    located = [Located(record, "", n) for n, record in enumerate(records)]
    numbers = {str(n): n for n in range(passages)}
    prompts = by.words([record.question for record in records])
    table = read_rows(located, prompts, PassageTokens(by.words(texts), by), numbers, None)
    return table, table.batch(range(answers), module.reading, hard, (0, 0))


def method(by: Vocabulary, sizes: dict[str, int], **options: Any) -> CoSupervision:
    """One model that writes, searches and reads."""
    torch.manual_seed(0)
    more = {"initializer_range": 0.1, "max_position_embeddings": 1024}
    module = CoSupervision(ScratchBackbone("llama", sizes | more), **options)
    module.tokenizer = by.tokenizer
    module.configure_model()
    module.step_mean = StepMean(1, 1)
    module.log_for = lambda *_: None  # type: ignore[method-assign]
    return module


def ours(module: CoSupervision, batch: CitedBatch) -> Tensor:
    """The loss of a step."""
    read = module.read(batch)
    return -read.logprobs.mean() + module.contrast(read, batch, "val").mean()


def official(module: CoSupervision, table: CitedTable, batch: CitedBatch) -> Tensor:
    """Padded rows, two forwards, whole logits; but for its bugs (docs/co_supervision.md)."""

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*map(int, row)] + [value] * (width - len(row)) for row in rows])

    def mask(rows: Sequence[Sequence[int]]) -> Tensor:
        return padded([[1] * len(row) for row in rows], 0)

    rows = [row.tokens.tolist() for row in table.rows]
    labels = padded([[-100] * row.prompt + [*map(int, row.tokens[row.prompt :])] for row in table.rows], -100)
    told = module.model(input_ids=padded(rows, 0), attention_mask=mask(rows), output_hidden_states=True)
    ntp = F.cross_entropy(told.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    queries = torch.stack([told.hidden_states[-1][n, row.cites[0].at] for n, row in enumerate(table.rows)])
    texts = [table.passages.by.embedded(table.passages.ids[int(key) - 1]) for key in batch.passage_keys]
    read = module.model.base_model(input_ids=padded(texts, 0), attention_mask=mask(texts))  # which has no head there
    ends = torch.tensor([len(text) - 1 for text in texts])
    passages = read.last_hidden_state[torch.arange(len(texts)), ends]
    scores = F.cosine_similarity(queries[:, None], passages[None], dim=-1) / module.temperature
    return ntp + F.cross_entropy(scores, batch.labels)


def gradients(module: CoSupervision, loss: Tensor) -> Tensor:
    """All of them, one after the other."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


def steps(sizes: dict[str, int], repeats: int) -> None:
    """Forward and backward."""
    by = vocabulary([*WORDS, *MORE])
    module = method(by, sizes)
    table, batch = batch_of(by, 16, module)
    ways = {
        "the official way: padded rows, two forwards": lambda: gradients(module, official(module, table, batch)),
        "ours: one forest": lambda: gradients(module, ours(module, batch)),
    }
    seconds, found = fastest(ways, repeats + 1)  # the first forest of a model is checked
    first, second = found.values()
    apart = float((first - second).norm() / first.norm())
    assert apart < AGREE, f"gradients differ by {apart:.1e} of their norm"
    show("A step: 8 answers, 16 passages", seconds, f"gradients differ by {apart:.0e} (target: 2x)")


def show(title: str, seconds: dict[str, float], note: str) -> None:
    """Seconds and ratios to the first way."""
    table = Table("way", unit(), "times as fast", title=title, title_justify="left")
    baseline = next(iter(seconds.values()))
    for name, spent in seconds.items():
        table.add_row(name, f"{spent:.2f}", f"{baseline / spent:.2f}")
    CONSOLE.print(table, note)


def memory(sizes: str, counts: Sequence[int]) -> None:
    """Peak memory of a step beyond a process that has only built the model."""
    base = measured(sizes, 8, "nothing")
    table = Table("passages", "the official way, MiB", "one forest, MiB", "gradient cache, MiB")
    for passages in counts:
        ways = [measured(sizes, passages, way) - base for way in ("official", "forest", "cache")]
        table.add_row(str(passages), *(f"{way / 1024:,.0f}" for way in ways))
    CONSOLE.print("Memory of a step (target: one forest at most 0.6 of the official way)", table)


def measured(sizes: str, passages: int, way: str) -> int:
    """Peak memory of a process in KiB."""
    command = [sys.executable, __file__, "--alone", sizes, str(passages), way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.split()[-1])


def step_alone(sizes: dict[str, int], passages: int, way: str) -> None:
    """Steps in this process; prints the largest amount of memory that it has ever held."""
    by = vocabulary([*WORDS, *MORE])
    module = method(by, sizes, grad_cache_tokens=512 if way == "cache" else None)
    table, batch = batch_of(by, passages, module)
    for _ in range(0 if way == "nothing" else 2):
        gradients(module, official(module, table, batch) if way == "official" else ours(module, batch))
    print(peak_kibibytes())


# --- writing ----------------------------------------------------------------------------------------------------------


def writing(sizes: dict[str, int], repeats: int, questions: int, tokens: int) -> None:
    """Answers of so many tokens with look-ups on the way."""
    by = vocabulary(WORDS)
    generator = torch.Generator().manual_seed(1)
    passages = by.words([draw(generator, PASSAGE) for _ in range(50)])
    asked = [
        Asked(f"q{n}", "", tuple(ids))
        for n, ids in enumerate(by.words([draw(generator, QUESTION) for _ in range(questions)]))
    ]
    vectors = torch.randn(50, sizes["hidden_size"], generator=generator)

    def find(look_ups: Sequence[Any]) -> list[Hit]:
        scores = torch.stack([look_up.state for look_up in look_ups]).float() @ vectors.T
        return [Hit(int(row.argmax()), str(int(row.argmax())), float(row.max())) for row in scores]

    # of a few words alone, or a random model would look something up once in thousands of tokens
    rare = by.tokenizer.convert_tokens_to_ids(WORDS[USED:])
    decoding = Decoding(max_new_tokens=tokens, temperature=1.0, forbidden=(by.tokenizer.eos_token_id, *rare))

    def ways(model: Any, asked: Sequence[Asked]) -> dict[str, Callable[[], list[Any]]]:
        def write(engine: type, held: int, some: Sequence[Asked]) -> list[Any]:
            made = engine(model, by.tokenizer, held)
            return Writer(made, by, passages, find, Citing(max_retrievals=3), decoding, 0, "").write(some)

        return {
            "the official way: the context anew at each look-up, one by one": lambda: [
                write(PlainEngine, 1, [one])[0] for one in asked
            ],
            "the same, batched": lambda: write(PlainEngine, 32 * 640, asked),
            "ours: passages appended to the cache": lambda: write(CacheEngine, 32 * 640, asked),
        }

    exact = {name: way() for name, way in ways(method(by, sizes).double().eval().model, asked[:EXACT]).items()}
    expected, *others = exact.values()
    assert all(differing(answers, expected) == 0 for answers in others), "answers differ in float64"
    seconds, found = fastest(ways(method(by, sizes).eval().model, asked), repeats)
    expected, *others = found.values()
    apart = max(differing(answers, expected) for answers in others)
    looked_up = sum(len(answer.retrieved) for answer in expected)
    note = f"{EXACT} are equal in float64, {apart} differ in float32, where rounding decides a draw"
    show(f"Writing {questions} answers with {looked_up} look-ups", seconds, f"{note} (targets: 5x, 1.5x of the second)")


def differing(answers: Sequence[Any], others: Sequence[Any]) -> int:
    """How many answers have other words, citations or look-ups."""
    return sum(
        (one.pieces, [found.id for found in one.retrieved]) != (other.pieces, [found.id for found in other.retrieved])
        for one, other in zip(answers, others, strict=True)
    )


# --- encoding ---------------------------------------------------------------------------------------------------------


def encoding(sizes: dict[str, int], repeats: int, count: int) -> None:
    """Texts of a corpus to the vectors of its index."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    by = vocabulary(WORDS)
    module = method(by, sizes, keep=False)
    module.eval()
    generator = torch.Generator().manual_seed(2)
    texts = [draw(generator, PASSAGE) for _ in range(count)]
    passages = [Passage(str(n), "", text) for n, text in enumerate(texts)]
    ended = [f"{text} {by.tokens.embed}" for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        module.model.base_model.save_pretrained(folder)
        by.tokenizer.save_pretrained(folder)
        pooled = Pooling(sizes["hidden_size"], pooling_mode="lasttoken")
        peer = SentenceTransformer(modules=[Transformer(folder), pooled, Normalize()], device="cpu")

    def theirs(size: int) -> Tensor:
        return peer.encode(ended, batch_size=size, convert_to_tensor=True, show_progress_bar=False)

    def ours() -> Any:
        index = module.passage_search(passages, PassageTokens(by.words(texts), by)).index
        assert isinstance(index, VectorIndex)
        return index.vectors

    ways: dict[str, Callable[[], Any]] = {
        f"sentence-transformers, batches of {size}": partial(theirs, size) for size in (4, 16, 64)
    }
    ways[f"ours: forests of {module.index_batch_tokens:,} tokens"] = ours
    seconds, found = fastest(ways, repeats + 1)  # the first forest of a model is checked
    *others, own = (torch.as_tensor(vectors) for vectors in found.values())
    apart = max(float((own - other).abs().max()) for other in others)
    assert apart < AGREE, f"vectors differ by {apart:.1e}"
    best = min([*ways][:-1], key=lambda name: seconds[name])
    shown = {best: seconds[best]} | {name: seconds[name] for name in ways if name != best}
    show(f"Encoding {count} passages", shown, f"vectors differ by {apart:.0e} (target: no slower than the first)")


if __name__ == "__main__":
    main()
