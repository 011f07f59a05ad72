"""What the benchmarks of sampling and exploring share: a model with random weights whose solutions end as real ones do.

Speed depends on lengths, not on sense. So solutions are of the length of those of GSM8K, and which of them are right is
decided by chance that is the same for every way of computing. Used by the benchmarks of rollouts, self_explore,
beginnings and sure.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from rich.table import Table
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.generation import GenerationConfig, StoppingCriteriaList

from benchmarks.clock import interleaved, unit
from lm.generation.decoding import Decoding
from lm.generation.engine import left_padded
from lm.generation.sampling import processors, row_keys
from lm.generation.stopping import Ends, StopStrings

T = TypeVar("T")
VOCABULARY = 16384
END = 0


class Thinker(LlamaForCausalLM):
    """A Llama that ends its texts about `config.ends_at` positions after their beginning, give or take a quarter."""

    def forward(self, *args: Any, position_ids: torch.Tensor, **kwargs: Any) -> Any:
        """As any Llama's; the further on, the likelier the end."""
        output = super().forward(*args, position_ids=position_ids, **kwargs)
        asked = position_ids[:, -output.logits.shape[1] :].float()
        likelier = (asked - self.config.ends_at) / (self.config.ends_at / 8)
        output.logits[..., END] = math.log(VOCABULARY) - 3 + likelier.clamp(max=6)  # the others are about 0
        return output


def thinker(width: int, layers: int, ends_at: int) -> Thinker:
    """One with random weights and a tied head; 10.5 million parameters at 8 layers of 256."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
    )
    config.ends_at = ends_at
    return Thinker(config).eval()


def fill_in(options: argparse.Namespace, sizes: Mapping[str, tuple[int, int]]) -> argparse.Namespace:
    """Give the options that were left out the first of their sizes, or the second with ``--quick``."""
    for name, (full, few) in sizes.items():
        if getattr(options, name) is None:
            setattr(options, name, few if options.quick else full)
    return options


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words; every 16th ends a line."""
    vocabulary = {f"w{i} " if i % 16 else f"w{i}\n": i for i in range(VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="w1 "))
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=f"w{END}\n")
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def usual(
    model: Thinker,
    prefixes: Sequence[Sequence[int]],
    k: int,
    decoding: Decoding,
    keys: Sequence[tuple[int, int]] | None = None,
) -> list[tuple[int, ...]]:
    """One call of `generate` with ``num_return_sequences=k``: its prompts padded on the left, nothing reused.

    Args:
        model: writes.
        prefixes: of one batch.
        k: continuations of each.
        decoding: temperature and most tokens.
        keys: seed and number of each draw, for draws as ours are; by default `generate` draws by itself.
    """
    ids, mask = left_padded(prefixes, model.device)
    rows = len(prefixes) * k
    width = torch.full((rows,), ids.shape[1])
    room = torch.full((rows,), decoding.max_new_tokens)
    ends = Ends(width, room, [END], [StopStrings(None, ())] * rows)  # type: ignore[arg-type]  # none to be read
    own = GenerationConfig(max_new_tokens=decoding.max_new_tokens, pad_token_id=END)
    if (
        keys is not None
    ):  # what num_return_sequences does, which is for `do_sample` alone; here the noise is among the scores
        ids, mask = ids.repeat_interleave(k, 0), mask.repeat_interleave(k, 0)
        own_keys = row_keys(*zip(*keys, strict=True))  # type: ignore[arg-type]
        more = {"logits_processor": processors([decoding] * rows, own_keys, width)}
    else:
        more = {}
        own.num_return_sequences, own.do_sample, own.temperature, own.top_k = k, True, decoding.temperature, 0
    written = model.generate(
        ids, attention_mask=mask, generation_config=own, stopping_criteria=StoppingCriteriaList([ends]), **more
    )
    lengths = ends.lengths.tolist()
    return [tuple(row[:n]) for row, n in zip(written[:, ids.shape[1] :].tolist(), lengths, strict=True)]


def size(model: Thinker) -> str:
    """How large the model is, in words."""
    count = sum(p.numel() for p in model.parameters())
    return f"{count / 1e6:.1f} M parameters, V = {model.config.vocab_size:,}"


def chance(*parts: object) -> float:
    """A number in [0, 1) that is the same for the same parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def prefilled(
    model: Any, ways: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, int], dict[str, Any]]:
    """Seconds of each round, tokens of prompts that the last one computed, and what came out, by way.

    Args:
        model: that all ways ask.
        ways: by name; interleaved, so that a busy moment hits all alike.
        rounds: how often.
    """
    tokens = dict.fromkeys(ways, 0)
    counted: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: counted.append(kwargs["input_ids"].numel() * (kwargs["input_ids"].shape[1] > 1)),
        with_kwargs=True,
    )

    def run(name: str) -> Any:
        counted.clear()
        result = ways[name]()
        tokens[name] = sum(counted)
        return result

    seconds, found = interleaved({name: partial(run, name) for name in ways}, rounds)
    return seconds, tokens, found


def table(seconds: dict[str, list[float]], tokens: dict[str, int]) -> Table:
    """Medians, spread and ratios to the first way and to the one before.

    Args:
        seconds: of each way's rounds.
        tokens: that each way wrote in a round.
    """
    columns = ("way", "median s", "fastest - slowest", "tokens", "tokens/s", "to the first", "to the one before")
    result = Table(*columns, title=unit(), title_justify="left")
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    first = before = next(iter(medians.values()))
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.1f} - {max(seconds[name]):.1f}"
        speed = f"{tokens[name] / median:,.0f}"
        ratios = f"{first / median:.2f}x", f"{before / median:.2f}x"
        result.add_row(name, f"{median:.2f}", spread, f"{tokens[name]:,}", speed, *ratios)
        before = median
    return result
