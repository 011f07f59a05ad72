"""Generation by engines of others, for GPUs: transformers' continuous batching, and vLLM.

Greedy decoding gives the tokens of any engine. Samples are drawn by their own random numbers: those of vLLM depend
on the seed of each draw, and hardly on the batch; those of continuous batching depend on all draws of a call. So two
runs agree in distribution, not token for token. This file knows requests. How models compute is theirs.
"""

from __future__ import annotations

import importlib
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedTokenizerBase

from lm.backbones.adapters import is_adapted
from lm.backbones.kept_key import model_sha256
from lm.generation.decoding import Decoding, Sample
from lm.generation.engine import Engine
from lm.generation.rows import Row, Work, Written
from lm.generation.sampling import seed_of
from text.errors import UserError

PAGE = 256  # tokens of a page of transformers' cache


class ServedEngine(Engine):
    """An engine that is asked for many draws at a time."""

    def _run(self, work: Work) -> Iterator[list[Written]]:
        """All rows there are, then those of draws that were appended."""
        if work.hook is not None:
            raise UserError("engines continuous and vllm cannot pause for a hook: use engine: cache or plain")
        while rows := work.new():
            yield [Written(row, sample) for row, sample in zip(rows, self._ask(rows), strict=True)]

    @abstractmethod
    def _ask(self, rows: list[Row]) -> Iterable[Sample]:
        """The sample of each row, in order."""

    def _cut(self, row: Row, tokens: Sequence[int], finished: bool = False) -> Sample:
        """The sample of what a library wrote, which counts the end token; `finished`: also by a stop string."""
        end = tokens[-1] if tokens and tokens[-1] in self.end_ids else None
        written = tuple(tokens if end is None else tokens[:-1])
        return self._sample(replace(row, written=written), finished or end is not None, end)


class ContinuousEngine(ServedEngine):
    """transformers' continuous batching: rows of any length in pages of a cache, which others replace as they end.

    Args:
        model: see Engine.
        tokenizer: see Engine.
        max_batch_tokens: tokens that the pages hold; by itself the library takes 60 percent of all memory.

    Raises:
        UserError: for a sharded model.
    """

    drawn_by = "transformers"

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int = 16384):
        super().__init__(model, tokenizer, max_batch_tokens)
        _refuse_sharded(self, "continuous")

    def _ask(self, rows: list[Row]) -> list[Sample]:
        """One call for all rows that are decoded alike and have equal room: the library takes one limit for all."""
        alike: dict[tuple[Decoding, int], list[Row]] = {}
        for row in rows:
            if row.decoding.stop or row.decoding.repetition_penalty != 1 or row.decoding.forbidden:
                raise UserError(
                    "engine continuous: 'stop', 'repetition_penalty' and 'forbidden' are not to be had: use cache, vllm"
                )
            alike.setdefault((replace(row.decoding, max_new_tokens=1), self._room(row)), []).append(row)
        found: dict[int, Sample] = {}
        for (decoding, room), together in alike.items():
            found |= zip((row.place for row in together), self._call(together, decoding, room), strict=True)
        return [found[row.place] for row in rows]

    def _call(self, rows: list[Row], decoding: Decoding, room: int) -> Iterator[Sample]:
        settings = GenerationConfig(
            do_sample=decoding.temperature > 0,
            temperature=decoding.temperature or None,
            top_p=decoding.top_p,
            top_k=decoding.top_k or 0,
            eos_token_id=self.end_ids,
            pad_token_id=self.end_ids[0] if self.end_ids else 0,
        )
        longest = max(len(row.draw.prefix) for row in rows)
        pages = ContinuousBatchingConfig(
            num_blocks=max(self.max_batch_tokens, longest + room) // PAGE + 2,
            seed=seed_of(0, *(f"{row.draw.seed}/{row.draw.number}" for row in rows)) % 2**31,
            use_cuda_graph=self.causal.device.type == "cuda",
        )
        attention = self.causal.config._attn_implementation
        try:
            found = self.causal.generate_batch(
                [list(row.draw.prefix) for row in rows],
                generation_config=settings,
                continuous_batching_config=pages,
                max_new_tokens=room,
            )
        finally:
            self.causal.set_attn_implementation(attention)  # paged for the time of the call
        if len(found) < len(rows):
            raise UserError(f"engine continuous: {len(rows) - len(found)} of {len(rows)} requests came to nothing")
        for row, output in zip(rows, found.values(), strict=True):
            if output.error is not None:
                raise UserError(f"engine continuous: {output.error}")
            yield self._cut(row, output.generated_tokens)


class VLLMEngine(ServedEngine):
    """vLLM, in this process: pages of a cache in which beginnings are found again, and kernels of its own.

    vLLM computes with weights of its own, in the precision of the model or of the autocast around it: the model is
    written to a temporary folder when it is first asked.

    Args:
        model: see Engine.
        tokenizer: see Engine.
        max_batch_tokens: not used: vLLM takes what memory there is.

    Raises:
        UserError: for a sharded model or one with adapters, if vLLM is not installed, or if the weights have changed
            since they were written.
    """

    drawn_by = "vllm"

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int = 16384):
        super().__init__(model, tokenizer, max_batch_tokens)
        _refuse_sharded(self, "vllm")
        if is_adapted(model):
            raise UserError("engine vllm: merge the adapters first (merge_adapter: true), or use another engine")
        try:
            self.library = importlib.import_module("vllm")
        except ImportError as error:
            raise UserError(
                "engine vllm: vLLM is not installed: pip install -e '.[vllm]' in the project's folder"
            ) from error
        self._served: Any = None
        self._written = ""  # what the weights were like that it computes with

    def _ask(self, rows: list[Row]) -> Iterator[Sample]:
        """One request per row; see ServedEngine."""
        requests = [{"prompt_token_ids": list(row.draw.prefix)} for row in rows]
        for row, output in zip(rows, self._engine().generate(requests, [*map(self._settings, rows)]), strict=True):
            (written,) = output.outputs
            yield self._cut(row, written.token_ids, written.finish_reason == "stop")

    def _settings(self, row: Row) -> Any:
        decoding, allowed = row.decoding, None
        if decoding.forbidden:
            allowed = sorted({*range(self.causal.config.get_text_config().vocab_size)} - {*decoding.forbidden})
        return self.library.SamplingParams(
            max_tokens=self._room(row),
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k or -1,
            repetition_penalty=decoding.repetition_penalty,
            stop=list(decoding.stop),
            stop_token_ids=self.end_ids,
            allowed_token_ids=allowed,
            skip_special_tokens=False,  # a stop string may name them; the text is made of the tokens
            seed=seed_of(row.draw.seed, row.draw.number) % 2**31,
        )

    @property
    def _precision(self) -> str:
        device = self.causal.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.causal.dtype
        return str(dtype).removeprefix("torch.")

    def _engine(self) -> Any:
        written = model_sha256(self.causal)
        if self._served is not None and written != self._written:
            raise UserError(
                "engine vllm: the weights have changed since vLLM read them, and it would go on with the old ones. "
                "While a model is trained, use engine: cache"
            )
        if self._served is None:
            self._written = written
            with tempfile.TemporaryDirectory() as folder:
                self.causal.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
                # By itself vLLM computes in float16 with float32 weights.
                options: dict[str, Any] = {"enable_prefix_caching": True, "dtype": self._precision}
                if torch.cuda.is_available():  # our weights are there too
                    free, whole = torch.cuda.mem_get_info()
                    options["gpu_memory_utilization"] = 0.9 * free / whole
                self._served = self.library.LLM(model=folder, **options)
        return self._served


def _refuse_sharded(engine: Engine, name: str) -> None:
    if engine.sharded:
        raise UserError(f"engine {name}: it does not generate from sharded models: use engine: plain")
