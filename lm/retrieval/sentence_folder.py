"""The folder layout of sentence-transformers, written and read without the package: encoder, pooling, projection, norm.

The package could write it, but takes no model that is in memory, so that weights would be loaded and written once more;
what its version 6 writes, no earlier one opens; and `fit` leaves such a folder in installations that do not have it.
Knows files and tensors. What the vectors are for, and how a checkpoint is opened, is said elsewhere.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.export import save_model
from lm.backbones.merged_adapters import Rounding
from lm.files.names import resolve
from lm.retrieval.pooling import EmbeddingHead, Pooling
from text.errors import UserError
from text.retrieval.tasks import Passage, Query, TextFormat

POOLING: dict[Pooling, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
}
SHORT: dict[Pooling, str] = {"cls": "cls", "mean": "mean", "last": "lasttoken", "weighted_mean": "weightedmean"}
"""The same since version 6."""


def save_sentence_folder(
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    head: EmbeddingHead,
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
    query = format.of_query(Query.of("\0")).string.partition("\0")[0]
    passage = format.of_passage(Passage("", "", "\0")).string.partition("\0")[0]
    about = {
        "prompts": {"query": query, "passage": passage},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine" if head.normalize else "dot",
    }
    _json(folder / "config_sentence_transformers.json", about)
    return rounding


def head_of(checkpoint: dict[str, Any]) -> tuple[EmbeddingHead, TextFormat]:
    """What stands after the encoder of a checkpoint, and the format of its texts."""
    saved = dict(checkpoint["language_model"]["encoder"])
    format = TextFormat(**saved.pop("format"))
    return EmbeddingHead(projection=checkpoint["state_dict"].get("projection.weight"), **saved), format


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
    folders = [folder for kind, folder in _modules(name_or_path, revision) if kind == "Dense"]
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


def published_head(name_or_path: str) -> tuple[EmbeddingHead, TextFormat]:
    """What stands after the encoder of a published model, and the prefixes and the length of its texts.

    A model without this layout is read as sentence-transformers reads it: the mean of its tokens.

    Raises:
        UserError: if the model is made of other things.
    """
    if _find(name_or_path, "modules.json") is None:
        return EmbeddingHead("mean", True, None, False), TextFormat()
    modules = dict(listed := _modules(name_or_path))
    expected = ["Transformer", "Pooling", *(kind for kind in ("Dense", "Normalize") if kind in modules)]
    if (kinds := [kind for kind, _ in listed]) != expected:
        raise UserError(f"'{name_or_path}' is made of {', '.join(kinds)}; supported are {', '.join(expected)}")
    pooled = _read(name_or_path, f"{modules['Pooling']}/config.json")
    named = [mode for mode, key in POOLING.items() if pooled.get(key) or pooled.get("pooling_mode") == SHORT[mode]]
    if len(named) != 1:
        raise UserError(f"'{name_or_path}' pools in a way that is none of {', '.join(POOLING)}: {pooled}")
    projection = published_projection(name_or_path) if "Dense" in modules else None
    head = EmbeddingHead(named[0], pooled.get("include_prompt", True), projection, "Normalize" in modules)
    return head, _published_format(name_or_path)


def _published_format(name_or_path: str) -> TextFormat:
    """Prefixes and length, as far as they are told."""
    about = _read(name_or_path, "sentence_bert_config.json") | _read(name_or_path, "config_sentence_transformers.json")
    prompts = {name: text.replace("{", "{{").replace("}", "}}") for name, text in about.get("prompts", {}).items()}
    told: dict[str, Any] = {}
    if prompts.get("query"):
        told["query"] = prompts["query"] + "{query}"
    if prefix := prompts.get("passage") or prompts.get("document"):
        told["passage"] = prefix + "{title} {text}"
    if length := about.get("max_seq_length"):
        told |= {"query_max_length": length, "passage_max_length": length}
    return TextFormat(**told)


def _modules(name_or_path: str, revision: str | None = None) -> list[tuple[str, str]]:
    """What a published model is made of, in order: kinds and folders, which are its own."""
    listed = json.loads(_file(name_or_path, "modules.json", revision).read_text())
    if outside := next((entry["path"] for entry in listed if Path(entry["path"]).name != entry["path"]), None):
        raise UserError(f"'{name_or_path}': modules.json names '{outside}', which is not a folder in it")
    return [(entry["type"].rpartition(".")[2], entry["path"]) for entry in listed]


def _read(name_or_path: str, name: str) -> dict[str, Any]:
    """A file of settings; nothing where there is none."""
    found = _find(name_or_path, name)
    return {} if found is None else json.loads(found.read_text())


def _file(name_or_path: str, name: str, revision: str | None) -> Path:
    if (found := _find(name_or_path, name, revision)) is None:
        raise UserError(f"'{name_or_path}' has no {name}: it is not a folder of sentence-transformers")
    return found


def _find(name_or_path: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a folder or of a repository on the hub, which is fetched; None if it has no such file."""
    folder = Path(resolve(name_or_path, "model"))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return Path(hf_hub_download(name_or_path, name, revision=revision))
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # every kind of library and network error
        raise UserError(
            f"'{name_or_path}': {name} could not be fetched: {' '.join(str(error).split())[:200]}"
        ) from error


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
