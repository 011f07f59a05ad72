"""Every kind of cache, and a checkpoint, broken in eight ways: made anew or refused by name, and never used."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from callbacks.run_folders import check_checkpoint
from cli.disk_errors import reason_of
from lm.backbones.kept_key import Keeper, digest
from lm.files.dummy_model import untrained_model
from lm.files.embedding_store import KEY, EmbeddingStore
from lm.files.kept_files import cache_folder
from lm.generation.decoding import Decoding
from lm.generation.kept_answers import LoggedEngine
from lm.generation.plain import PlainEngine
from lm.judging.kept_verdicts import CachedJudge
from lm.judging.requests import JudgeRequest, Verdict
from lm.scoring.reference_sums import reference_sums
from lm.tokens.token_cache import kept_lists, kept_tokenizer, tokenised
from lm.tokens.tokenizer import BPETokenizer
from tests.broken_files import WAYS, broken, readable_folder
from tests.preference_stand_ins import Table, random_pairs
from tests.stand_ins import scratch, tiny_tokenizer
from text.errors import UserError
from text.judging.rubrics import Rubric

pytestmark = pytest.mark.slow

TOKENIZER = tiny_tokenizer()
TEXTS = {"mine": ["the cat sat", "hello world"] * 700, "other": ["another corpus altogether"] * 900}
TIMES = {"zeroed page": 3, "bit flipped": 12}  # places within a file that are tried
REFUSABLE = ("unreadable", "a folder in its place")  # not for us to delete
REFUSED = object()
Use = Callable[[str], Any]


def tokens(whose: str) -> Any:
    return tokenised(whose, lambda: TEXTS[whose], TOKENIZER).tolist()


def token_lists(whose: str) -> Any:
    return kept_lists(whose, lambda: TOKENIZER(TEXTS[whose])["input_ids"])


def tokenizers(whose: str) -> Any:
    tokenizer = kept_tokenizer(whose, lambda: BPETokenizer(vocab_size=270).build(TEXTS[whose]))
    return tokenizer("the cat sat with another")["input_ids"], tokenizer.get_vocab(), tokenizer.eos_token_id


def models(whose: str) -> Any:
    """There is one; what `builtin:smollm2` is made into is kept in the same way."""
    folder = untrained_model()
    return {name: weight.tolist() for name, weight in load_file(folder / "model.safetensors").items()}


def references(whose: str) -> Any:
    def score(batch: Any) -> torch.Tensor:
        return batch.forest.path_offsets.diff().float()

    return reference_sums(Table(random_pairs(9)), score, {"weights": whose}, torch.device("cpu")).sums.tolist()


class Judge:
    def __init__(self, weights: str):
        self.weights = weights

    def kept_by(self) -> Keeper:
        return Keeper(self.weights, "words", "settings", "float32")

    def judge(self, requests: list[JudgeRequest]) -> list[Verdict]:
        return [Verdict(score=len(request.responses[0]) + len(self.weights)) for request in requests]


def verdicts(whose: str) -> Any:
    rubric = Rubric(criteria="Is it short?", score_descriptions={str(score): "-" for score in range(1, 6)})
    asked = [JudgeRequest(f"r{n}", "Say hello.", ("a" * n,), rubric) for n in range(40)]
    return CachedJudge(Judge(whose), cache_folder() / "verdicts").judge(asked)


def answers() -> Use:
    engines = {}
    for seed, whose in enumerate(TEXTS):
        torch.manual_seed(seed)
        engines[whose] = PlainEngine(scratch().build(TOKENIZER), TOKENIZER)

    def use(whose: str) -> Any:
        logged = LoggedEngine(engines[whose], cache_folder() / "rollouts")
        return logged.generate([[5, 6], [7], [8, 9]], 4, Decoding(max_new_tokens=6, temperature=1.0), [1, 2, 3])

    return use


def embeddings(whose: str) -> Any:
    rng = np.random.default_rng(len(whose))
    keys, vectors = rng.integers(0, 256, (50, KEY), dtype=np.uint8), rng.standard_normal((50, 30)).astype(np.float32)
    folder = cache_folder() / "embeddings" / digest(whose)
    lacking = EmbeddingStore(folder, 30).find(keys) < 0
    if lacking.any():
        EmbeddingStore(folder, 30).append(keys[lacking], vectors[lacking])
    store = EmbeddingStore(folder, 30)
    return store.take(store.find(keys)).tolist()


KINDS: dict[str, Use] = {
    use.__name__: use for use in (tokens, token_lists, tokenizers, models, references, verdicts, embeddings)
}


@dataclass
class Cache:
    """A cache that is whole, and what was found in it.

    Args:
        use: finds something in the cache, or makes it.
        folder: of the cache.
        whole: a copy of it.
    """

    use: Use
    folder: Path
    whole: Path

    def targets(self) -> list[tuple[Path, bytes]]:
        """Each file of mine below the cache, and the content of a like one of the other's."""
        self.use("other")
        other = self.files()
        self.use("mine")
        mine = [path for path in self.files() if path not in other] or other
        shutil.copytree(self.folder, self.whole)
        return [(path, self.another(path, other)) for path in mine]

    def another(self, path: Path, others: list[Path]) -> bytes:
        contents = {other: (self.folder / other).read_bytes() for other in others}
        contents = {other: held for other, held in contents.items() if held != (self.folder / path).read_bytes()}
        return contents[min(contents, key=lambda other: (other.name != path.name, other.suffix != path.suffix))]

    def files(self) -> list[Path]:
        return sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.whole, self.folder)


def outcome_of(use: Use, path: Path) -> Any:
    try:
        return use("mine")
    except OSError as error:
        reason = reason_of(error)  # what every command prints
    assert str(path.parent) in (reason or "")
    return REFUSED


@pytest.mark.parametrize("kind", [*KINDS, "answers"])
def test_a_broken_cache_is_never_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use, rng, counts = KINDS.get(kind) or answers(), random.Random(kind), Counter[str]()
    with readable_folder() as place:
        cache = Cache(use, place / "cache", place / "whole")
        monkeypatch.setenv("SEEDLING_CACHE", str(cache.folder))
        expected = use("mine")
        shutil.rmtree(cache.folder)
        for path, other in cache.targets():
            for way in WAYS:
                for _ in range(TIMES.get(way, 1)):
                    cache.restore()
                    with broken(cache.folder / path, way, other, rng):
                        found = outcome_of(use, cache.folder / path)
                    assert found == expected or (found is REFUSED and way in REFUSABLE), (path, way)
                    counts["refused by name" if found is REFUSED else "not used"] += 1
    assert counts.total() > 20
    print(f"\ncounted: {counts.total()} breakages of {kind}; " + ", ".join(f"{n} {what}" for what, n in counts.items()))


def test_a_broken_checkpoint_is_never_used() -> None:
    rng, counts = random.Random(8), Counter[str]()
    with readable_folder() as place:
        path, whole = place / "last.ckpt", place / "whole.ckpt"
        weights = {"a": torch.arange(9000.0), "b": torch.ones(3, 5)}
        torch.save({"global_step": 7, "state_dict": weights, "lr_schedulers": []}, whole)
        for way in WAYS:
            for _ in range(10 * TIMES.get(way, 1)):
                if path.is_dir():
                    path.rmdir()
                shutil.copyfile(whole, path)
                with broken(path, way, b"PK, but of something else" * 99, rng):
                    outcome = of_checkpoint(path, weights)
                counts[outcome] += 1
    assert counts["refused by name"] > 200
    print(f"\ncounted: {counts.total()} breakages of checkpoints; " + ", ".join(f"{n} {w}" for w, n in counts.items()))


def of_checkpoint(path: Path, weights: dict[str, torch.Tensor]) -> str:
    """A bit between the parts of an archive belongs to none of them, and changes nothing."""
    try:
        check_checkpoint(path)
    except (UserError, OSError) as error:
        reason = reason_of(error)
        assert str(path) in (reason or "")
        return "refused by name"
    loaded = torch.load(path, weights_only=True)
    assert loaded["global_step"] == 7
    assert all(torch.equal(loaded["state_dict"][name], weight) for name, weight in weights.items())
    return "without effect"
