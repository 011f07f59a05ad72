"""The folder layout of sentence-transformers, written and read without the package: encoder, pooling, projection, norm.

Knows files and tensors. What the vectors are for, and how a checkpoint is opened, is said elsewhere.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.export import save_model
from lm.backbones.merged_adapters import Rounding
from lm.files.names import resolve
from lm.retrieval.pooling import Pooling
from text.errors import UserError
from text.retrieval.tasks import Passage, Query, TextFormat

POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
}


@dataclass(frozen=True)
class Head:
    """What turns hidden states into an embedding.

    Args:
        pooling: see lm/retrieval/pooling.py.
        pool_prefix: whether tokens of instruction and prefix count in the pooling.
        projection: weight [out, hidden] of a linear layer after pooling, or None.
        normalize: whether vectors have length 1.
    """

    pooling: Pooling
    pool_prefix: bool
    projection: Tensor | None
    normalize: bool


def save_sentence_folder(
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    head: Head,
    format: TextFormat,
    dtype: torch.dtype | None = None,
) -> Rounding:
    """Write what ``SentenceTransformer(folder)`` opens, with the same embeddings; `AutoModel` opens it too.

    The prefixes of a format become the prompts ``query`` and ``passage``; a text is cut at the longer of its limits.

    Args:
        folder: an existing folder.
        model: a `PreTrainedModel`, or a `PeftModel`, whose adapters are merged.
        tokenizer: saved beside it.
        head: what stands after the encoder.
        format: of the texts it was trained on.
        dtype: of the encoder's weights; as they are when missing.

    Returns: what merged weights lost by rounding.
    """
    hidden = model.config.hidden_size
    rounding = save_model(model, closing(tokenizer) if format.append_eos else tokenizer, folder, dtype=dtype)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling = {name: mode == head.pooling for mode, name in POOLING.items()}
    pooled = {"word_embedding_dimension": hidden, **pooling, "include_prompt": head.pool_prefix}
    _json(folder / "1_Pooling" / "config.json", pooled)
    if head.projection is not None:
        out = head.projection.shape[0]
        dense = {"in_features": hidden, "out_features": out, "bias": False}
        _json(folder / "2_Dense" / "config.json", dense | {"activation_function": "torch.nn.modules.linear.Identity"})
        weight = head.projection.detach().cpu().float().contiguous()
        save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
        modules.append(("2_Dense", "Dense"))
    if head.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (folder / modules[-1][0]).mkdir()
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    _json(folder / "modules.json", listed)
    longest = max(format.query_max_length, format.passage_max_length)
    _json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    query = format.of_query(Query("", "\0", None, "", "")).string.partition("\0")[0]
    passage = format.of_passage(Passage("", "", "\0")).string.partition("\0")[0]
    about = {
        "prompts": {"query": query, "passage": passage},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine" if head.normalize else "dot",
    }
    _json(folder / "config_sentence_transformers.json", about)
    return rounding


def head_of(checkpoint: dict[str, Any]) -> tuple[Head, TextFormat]:
    """What stands after the encoder of a checkpoint, and the format of its texts."""
    saved = dict(checkpoint["language_model"]["encoder"])
    format = TextFormat(**saved.pop("format"))
    return Head(projection=checkpoint["state_dict"].get("projection.weight"), **saved), format


def encoder_card(saved: dict[str, Any], step: int, rounding: Rounding | None = None) -> str:
    """The README of an exported encoder: what it is, and how texts are to be written for it.

    Args:
        saved: what a `BiEncoder` adds to a checkpoint.
        step: optimizer steps done.
        rounding: what merged weights lost.
    """
    name, encoder = saved["fingerprint"]["name"], saved["encoder"]
    rows = {
        "Method": saved["method"],
        "Base": name,
        "Optimizer steps": f"{step:,}",
        "Tokens seen": f"{saved['tokens']:,}",
        "Pooling": encoder["pooling"] + ("" if encoder["pool_prefix"] else ", without the prefix"),
        "Query text": f"`{encoder['format']['query']}`",
        "Passage text": f"`{encoder['format']['passage']}`",
    }
    if rounding:
        rows["Rounding"] = str(rounding)
    head = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "---"]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    code = "from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer(folder)"
    return (
        "\n".join(head)
        + f"\n\n# {name}, after {saved['method']}\n\nTrained with Seedling.\n\n| | |\n|---|---|\n{table}\n\n"
        + f"```python\n{code}\n```\n"
    )


def closing(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that closes every text with the end-of-text token by itself, also one that is cut."""
    from tokenizers import processors

    closed: Any = copy.deepcopy(tokenizer)
    eos, core = closed.eos_token, closed.backend_tokenizer
    if core.encode("a").tokens[-1:] == [eos]:
        return closed
    ends = processors.TemplateProcessing(
        single=f"$A {eos}", pair=f"$A $B {eos}", special_tokens=[(eos, closed.eos_token_id)]
    )
    core.post_processor = processors.Sequence([core.post_processor, ends]) if core.post_processor else ends
    return closed


def published_projection(name_or_path: str, revision: str | None = None) -> Tensor:
    """The weight [out, hidden] of the linear layer that a published sentence-transformers model has after its pooling.

    Raises:
        UserError: if it has none, or one that does more than multiply.
    """
    listed = json.loads(_file(name_or_path, "modules.json", revision).read_text())
    folders = [entry["path"] for entry in listed if entry["type"].endswith("Dense")]
    if len(folders) != 1:
        raise UserError(f"projection: '{name_or_path}' has {len(folders)} dense layers; set 'projection' to null")
    config = json.loads(_file(name_or_path, f"{folders[0]}/config.json", revision).read_text())
    if config.get("bias") or not config.get("activation_function", "").endswith("Identity"):
        raise UserError(f"projection: that of '{name_or_path}' has a bias or an activation, which is not supported")
    try:
        weights = load_file(_file(name_or_path, f"{folders[0]}/model.safetensors", revision))
    except UserError:  # older models
        file = _file(name_or_path, f"{folders[0]}/pytorch_model.bin", revision)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    return weights["linear.weight"]


def _file(name_or_path: str, name: str, revision: str | None) -> Path:
    folder = Path(resolve(name_or_path, "model"))
    if folder.is_dir():
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' has no {name}: it is not a folder of sentence-transformers")
        return folder / name
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name_or_path, name, revision=revision))
    except Exception as error:  # every kind of library and network error
        raise UserError(
            f"'{name_or_path}': {name} could not be fetched: {' '.join(str(error).split())[:200]}"
        ) from error


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
