"""Merging models by their weights: folders into a folder, tensor by tensor; adapters; and one merge after another.

What happens to tensors of one name stands in lm/merging/rules.py. This file sees to it that they belong together.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from lm.backbones.export import require_same_when_opened
from lm.backbones.fingerprint import NOT_IDENTITY
from lm.files.names import not_loaded, resolve
from lm.files.weight_files import INDEX, WeightFiles, as_bytes, inside, write_weights
from lm.files.whole_folder import whole_folder
from lm.merging.adapter_sums import ADAPTER, merge_adapters
from lm.merging.rules import Method, Recipe
from lm.tokens.tokenizer import PretrainedTokenizer, tokenizer_sha256
from text.errors import UserError

BESIDE_WEIGHTS = {".json", ".jinja", ".model", ".txt"}  # configuration, tokenizer, chat template: no code, no pickles
WANTED = ["*.json", "*.jinja", "*.txt", "tokenizer.model", "model*.safetensors", "adapter_model.safetensors"]
OWN = {INDEX, "merge.json", "trainer_state.json"}  # of these names only the first model's would be true


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    method: Method = "linear",
    base: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Merge models of one architecture, vocabulary and tokenizer into a new folder.

    Tensors are read, merged and written one at a time. Tokenizer, chat template and configuration are the first
    model's; ``merge.json`` and the model card say what was merged how. LoRA adapters become one adapter, see
    `lm.merging.adapter_sums.merge_adapters`.

    Args:
        folders: two or more: local folders with safetensors, or hub ids.
        out: the new folder; it appears when it is complete.
        method: ``linear``: sum of w_i theta_i. ``slerp``: along the arc between two models. ``task_arithmetic``:
            theta_0 + scale x sum of w_i tau_i. ``ties``: the large entries of task vectors, where they agree in sign.
            ``dare_linear`` and ``dare_ties``: task vectors that lost entries at random, summed or as in ties.
            ``dare_sequential``: one after the other, as in the script behind Prometheus 2 8x7B.
        base: what the models were trained from: for all methods but linear and slerp.
        overwrite: whether `out` may be replaced.
        **options: of `Recipe`.

    Returns: `out`.

    Raises:
        UserError: before anything stands under `out`, if the models do not belong together, two are the same, or an
            option is amiss.
    """
    recipe = Recipe(method, **options)
    weights = recipe.weights_of(len(folders))
    experts = _different_folders(folders)
    if any((source / ADAPTER).is_file() for source in experts):
        if method != "linear":
            raise UserError(f"merge: adapters are merged linearly; export the full models to merge them by {method}")
        return merge_adapters(experts, out, weights, base=base, overwrite=overwrite)
    if recipe.needs_base and base is None:
        raise UserError(f"merge: {method} needs 'base', what the models were trained from")
    if base is not None and not recipe.needs_base:
        raise UserError(f"merge: {method} has no use for a base: leave it out")
    bases = [] if base is None else [base]
    files = [WeightFiles(source) for source in (*experts, *map(find_folder, bases))]
    for file in files:
        file.drop_twins(_tied_weights(file.folder))
    _require_alike(files, len(experts))
    names = [str(name) for name in (*folders, *bases)]
    with whole_folder(Path(out), overwrite) as filling:
        stream = _Stream(recipe, files, len(experts))
        write_weights(filling, files[0].tensors, stream.merged)
        sums = stream.sums()
        if len({*sums[: len(experts)]}) < len(experts):
            raise UserError(f"merge: two of {', '.join(names[: len(experts)])} have the same weights")
        _copy_what_lies_beside(experts[0], filling)
        require_same_when_opened(PretrainedTokenizer(str(experts[0])).build(), filling)
        _describe(filling, recipe, names, sums, len(experts))
    return Path(out)


def _different_folders(folders: Sequence[str | Path]) -> list[Path]:
    if len(folders) < 2:
        raise UserError("merge: one model is no merge; give two or more")
    found = [find_folder(folder) for folder in folders]
    if len({folder.resolve() for folder in found}) < len(found):
        raise UserError("merge: one folder is given twice, and a model merged with itself is itself")
    return found


def find_folder(name: str | Path) -> Path:
    """The folder that a name means; one of the hub is fetched.

    Raises:
        UserError: there is none, or it is a run of this project.
    """
    path = Path(resolve(str(name), "model"))
    if path.suffix == ".ckpt" or (path / "checkpoints").is_dir():
        raise UserError(
            f"'{name}' is a run, not a Hugging Face folder: python export.py {name} <folder> makes one of it"
        )
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(str(name), allow_patterns=WANTED))  # many repositories hold weights twice
    except Exception as error:  # offline, no such repository, no access: each with an error of its own
        raise not_loaded(str(name), "model", error) from error


def _tied_weights(folder: Path) -> dict[str, str]:
    """Weights that are others under a second name in models of this configuration, each with the first name."""
    config = _read_config(folder)
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    if kind is None:
        return {}
    with torch.device("meta"):
        return dict(kind(config).all_tied_weights_keys)


def _require_alike(files: Sequence[WeightFiles], n_experts: int) -> None:
    """Refuse models of which the first would be a wrong description of the others."""
    first = files[0]
    config = _config(first.folder)
    for number, other in enumerate(files[1:], start=1):
        pair = f"'{first.folder}' and '{other.folder}'"
        theirs, is_base = _config(other.folder), number >= n_experts
        for key in ("model_type", "vocab_size", *sorted(config.keys() | theirs.keys())) if not is_base else ():
            if config.get(key) != theirs.get(key):
                raise UserError(f"merge: {pair} differ in '{key}': {config.get(key)} and {theirs.get(key)}")
        if lost := sorted(first.tensors.keys() ^ other.tensors.keys()):
            raise UserError(f"merge: {pair} have different weights: '{lost[0]}' is in one of them alone")
        for name, tensor in first.tensors.items():
            if tensor.shape != (shape := other.tensors[name].shape):
                raise UserError(f"merge: {pair}: '{name}' has shapes {[*tensor.shape]} and {[*shape]}")
    tokenizers = {str(file.folder): PretrainedTokenizer(str(file.folder)).build() for file in files}
    require_one_tokenizer(tokenizers, n_experts)


def require_one_tokenizer(tokenizers: Mapping[str, PreTrainedTokenizerBase], n_experts: int) -> None:
    """Refuse models that read one id as two things.

    Args:
        tokenizers: by the names of their models, of which the first `n_experts` are merged; the others are bases, which
            may cut text otherwise (by other special tokens) over the same vocabulary.
        n_experts: see there.

    Raises:
        UserError: naming two models.
    """
    (first, tokenizer), *others = tokenizers.items()
    for number, (name, theirs) in enumerate(others, start=1):
        same = tokenizer_sha256(tokenizer) == tokenizer_sha256(theirs)
        if not same and (number < n_experts or tokenizer.get_vocab() != theirs.get_vocab()):
            raise UserError(f"merge: '{first}' and '{name}' have different tokenizers: one id would mean two things")


def _read_config(folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise not_loaded(str(folder), "configuration", error) from error


def _config(folder: Path) -> dict[str, Any]:
    described = _read_config(folder).to_diff_dict()
    return {key: value for key, value in described.items() if key not in NOT_IDENTITY}


class _Stream:
    """Merged tensors one by one, and sums of what went in, whatever the order and the files."""

    def __init__(self, recipe: Recipe, files: Sequence[WeightFiles], n_experts: int):
        self.recipe, self.files, self.n_experts = recipe, files, n_experts
        self.digests: list[dict[str, str]] = [{} for _ in files]

    def merged(self, name: str) -> Tensor:
        tensors = [file.read(name) for file in self.files]
        for tensor, digests in zip(tensors, self.digests, strict=True):
            about = f"{name} {[*tensor.shape]}".encode()
            digests[name] = hashlib.sha256(about + as_bytes(tensor)).hexdigest()
        experts, base = tensors[: self.n_experts], tensors[self.n_experts :]
        if not tensors[0].is_floating_point():
            if any(not torch.equal(tensors[0], tensor) for tensor in experts):
                raise UserError(f"merge: '{name}' holds whole numbers, which differ: they cannot be averaged")
            return tensors[0]
        return self.recipe.apply(name, experts, *base)

    def sums(self) -> list[str]:
        """The sha256 of each model's weights."""
        return [hashlib.sha256("\n".join(d[name] for name in sorted(d)).encode()).hexdigest() for d in self.digests]


def _copy_what_lies_beside(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and path.suffix in BESIDE_WEIGHTS and path.name not in OWN:
            shutil.copyfile(inside(source, path.name), folder / path.name)
    if (templates := inside(source, "additional_chat_templates")).is_dir():
        (folder / templates.name).mkdir()
        for path in templates.glob("*.jinja"):
            shutil.copyfile(inside(templates, path.name), folder / templates.name / path.name)


def _describe(folder: Path, recipe: Recipe, names: Sequence[str], sums: Sequence[str], n: int) -> None:
    """``merge.json`` and the model card."""
    given = {key: value for key, value in asdict(recipe).items() if value is not None}
    models = [{"model": name, "sha256": found} for name, found in zip(names, sums, strict=True)]
    about = given | {"models": models[:n]} | ({"base": models[n]} if len(models) > n else {})
    (folder / "merge.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(names, n, given), encoding="utf-8")


def _card(names: Sequence[str], n: int, given: Mapping[str, Any]) -> str:
    published = [name for name in names if not Path(name).exists()]
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [merge]"]
    head += ["base_model:", *(f"- {name}" for name in published)] if published else []
    rows = [(f"Model {i + 1}", name) for i, name in enumerate(names[:n])] + [("Base", name) for name in names[n:]]
    rows += [(key, str(value)) for key, value in given.items()]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    title = " + ".join(Path(name).name for name in names[:n])
    code = 'from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained("folder")'
    return (
        "\n".join([*head, "---"])
        + f"\n\n# {title}, merged\n\nMerged with Seedling.\n\n| | |\n|---|---|\n{table}\n\n"
        + f"```python\n{code}\n```\n"
    )


@torch.no_grad()
def sweep(
    model: nn.Module,
    experts: Sequence[Mapping[str, Tensor]],
    alphas: Iterable[float],
    recipe: Recipe | None = None,
    base: Mapping[str, Tensor] | None = None,
) -> Iterator[float]:
    """Give a model the merged weights of one alpha after another, without files; its own come back at the end.

    Args:
        model: of the experts' architecture.
        experts: two state dicts.
        alphas: shares of the first.
        recipe: all but alpha; linear when missing.
        base: a state dict, for methods that need one.

    Yields: alpha, while the model has its weights.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    present = model.state_dict()
    try:
        for alpha in alphas:
            step = replace(recipe or Recipe(), alpha=alpha)
            for name, tensor in present.items():
                if tensor.is_floating_point():
                    bases = () if base is None else (base[name],)
                    tensor.copy_(step.apply(name, [expert[name] for expert in experts], *bases))
            yield alpha
    finally:
        for name, tensor in present.items():
            tensor.copy_(before[name])
