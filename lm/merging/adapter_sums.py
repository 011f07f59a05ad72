"""LoRA adapters of one base as one adapter: the weighted sum of their updates, exact.

Adapters whose updates do not add up are refused by the name of the option.
Knows peft's configurations. Which folders these are, and how full models are merged, is said in lm/merging/folders.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM

from lm.backbones.adapters import PublishedAdapter
from lm.backbones.encoder import AutoEncoder
from lm.backbones.export import save_tokenizer
from lm.files.names import not_loaded, resolve
from lm.files.whole_folder import whole_folder
from lm.tokens.tokenizer import PretrainedTokenizer
from text.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "adapter_config.json"
FREE = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules"),  # sums take them as they are
    *("lora_dropout", "eva_config", "runtime_config", "qalora_group_size", "megatron_core"),  # of training
    *("peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("ensure_weight_tying",),
}
"""Options that may differ between adapters whose updates are summed."""
SHARED = {"task_type", "fan_in_fan_out", "exclude_modules", "layers_to_transform", "layers_pattern"}
"""Options that may have any value, the same in all adapters: the sum has one of each."""
OWN_WEIGHTS = {"pissa", "olora", "corda", "loftq", "lora_ga"}
"""Ways of drawing the first values that change the base as well."""


def merge_adapters(
    sources: Sequence[Path],
    out: str | Path,
    weights: Sequence[float],
    *,
    base: str | Path | None = None,
    combination_type: str = "cat",
    overwrite: bool = False,
) -> Path:
    """LoRA adapters of one base as one adapter: the weighted sum of their updates.

    Args:
        sources: folders of adapters.
        out: the new folder.
        weights: one per adapter.
        base: the model that they were trained on; that which the first one names when missing.
        combination_type: of peft. ``cat`` is exact, and ranks add up. All others are not the merge of the models:
            ``linear`` averages the factors A and B by themselves, and their product has cross terms; ``svd`` cuts off.
        overwrite: whether `out` may be replaced.

    Raises:
        UserError: a folder holds no adapter, they name different bases, do not fit the base, or have an option by which
            their updates do not add up.
    """
    if bare := next((source for source in sources if not (source / ADAPTER).is_file()), None):
        raise UserError(f"merge: '{bare}' holds a full model and another folder an adapter: merge models of one kind")
    adapters = [PublishedAdapter(str(source)) for source in sources]
    configs = [adapter.config() for adapter in adapters]
    bases = [config.base_model_name_or_path for config in configs]
    if base is None and (len({*bases}) > 1 or not bases[0]):
        raise UserError(f"merge: the adapters name different bases ({', '.join(map(str, bases))}): give 'base'")
    _require_summable(sources, configs)
    task = configs[0].task_type or "CAUSAL_LM"
    adapted: Any = adapters[0].attach(_base(str(base or bases[0]), task), task, "adapter_0")
    names = [f"adapter_{number}" for number in range(len(sources))]  # not "0": peft takes it for part of "layers.0"
    for adapter, name in zip(adapters[1:], names[1:], strict=True):
        adapter.add(adapted, name)
    adapted.peft_config[names[0]].use_rslora = False  # the sum is scaled already, and takes after the first
    try:
        adapted.add_weighted_adapter(names, [*weights], "merged", combination_type)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"merge: these adapters do not add up: {' '.join(str(error).split())[:300]}") from error
    with whole_folder(Path(out), overwrite) as filling:
        adapted.save_pretrained(filling, selected_adapters=["merged"])
        for path in (filling / "merged").iterdir():
            path.rename(filling / path.name)
        (filling / "merged").rmdir()
        if (sources[0] / "tokenizer_config.json").is_file():
            save_tokenizer(PretrainedTokenizer(str(sources[0])).build(), filling)
    return Path(out)


def _base(name: str, task: str) -> Any:
    auto: Any = AutoEncoder if task == "FEATURE_EXTRACTION" else AutoModelForCausalLM
    try:
        return auto.from_pretrained(resolve(name, "base of the adapters"), revision="main", trust_remote_code=False)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise not_loaded(name, "base of the adapters", error) from error


def _require_summable(sources: Sequence[Path], configs: Sequence[LoraConfig]) -> None:
    """Refuse what makes a model of adapters other than the base plus the sum of their updates."""
    plain = type(configs[0])()
    for field in fields(plain):
        values = [getattr(config, field.name) for config in configs]
        if field.name in FREE:
            continue
        if field.name == "init_lora_weights":
            wrong: Any = [str(value).split("_niter_")[0] in OWN_WEIGHTS for value in values]
        elif field.name in SHARED:
            wrong = [value != values[0] for value in values]
        else:
            wrong = [value != getattr(plain, field.name) for value in values]
        if any(wrong):
            first = wrong.index(True)
            raise UserError(
                f"merge: adapter '{sources[first]}' has {field.name}: {json.dumps(values[first], default=str)}, and its"
                " update cannot be added to that of another adapter: make full models of them (export.py, or peft's"
                " merge_and_unload), and merge these"
            )
