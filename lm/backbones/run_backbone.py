"""A run of this project as the backbone of the next: supervised, then preferred, then generating or rewarding.

Knows where a run keeps its weights, its adapters and its tokenizer (lm/backbones/checkpoints.py), and nothing of what
it was trained for. Annotations are types, not strings, as in lm/backbones/backbone.py.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lm.backbones.adapters import LoRA, Quantization, weights_sha256
from lm.backbones.backbone import Attention, Backbone
from lm.backbones.checkpoint_parts import MAIN, part_of, weights_of
from lm.backbones.checkpoints import (
    describe,
    find_checkpoint,
    load_trained,
    open_checkpoint,
    rebuild_model,
    tokenizer_folder,
)
from lm.backbones.dtypes import Dtype, checked_dtype
from lm.backbones.fingerprint import fingerprint, require_same_base, require_same_tokenizer
from lm.backbones.merged_adapters import TOLD, merged
from lm.backbones.rebuilt import Grant, rebuild_backbone
from lm.tokens.tokenizer import tokenizer_sha256
from text.errors import UserError


@dataclass(frozen=True)
class TrainedBackbone(Backbone):
    """The model that an earlier run trained, with its tokenizer and chat template.

    The earlier run must stay where it is: checkpoints of the new one hold what it trains itself.

    Args:
        path: a run folder (its newest checkpoint), a checkpoint file or a sharded checkpoint folder.
        dtype: of the weights; ``auto`` takes that of the run. See PretrainedBackbone.
        lora: train fresh adapters instead of the weights.
        adapter: what becomes of adapters that the earlier run trained: ``merge`` puts them into the weights,
            ``continue`` goes on training them, on the base that run had.
        quantization: keep the frozen base in few bits, where adapters are continued on a published model.
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
        compile: compile each decoder block; takes minutes at the start, for long runs on a GPU.
        attn_implementation: ``auto`` takes the best that the architecture has without further packages.
        trust_remote_code: run Python code that comes with the weights that the run began with, if the run did; what
            the checkpoint itself says of that is not obeyed.
        base: where the model lies today that the run began with, if the run does not say it, or is not to be believed
            (docs/security.md); of a chain of runs a list, the last run's base first.
        part: which of the run's models, where it has several (docs/parts.md).
    """

    path: str
    dtype: Dtype = "float32"
    lora: LoRA | None = None
    adapter: Literal["merge", "continue"] = "merge"
    quantization: Quantization | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    attn_implementation: Attention = "auto"
    trust_remote_code: bool = False
    base: str | list[str] | None = None
    part: str = MAIN

    begins_with: ClassVar[tuple[str, ...]] = ("path",)
    refused: ClassVar[tuple[str, ...]] = ("encoder", "reward")
    """What a run may note of its model that makes it another kind of model than this one."""

    def __post_init__(self) -> None:
        """Check what the configuration gave; whether there is such a run is seen when it is needed."""
        object.__setattr__(self, "dtype", checked_dtype(self.dtype, "auto"))
        if not isinstance(self.path, str) or not self.path:
            raise UserError(f"backbone: 'path' is {self.path!r}; give a run folder or a checkpoint")
        if self.adapter not in ("merge", "continue"):
            raise UserError(f"backbone: 'adapter' is {self.adapter!r}; it must be merge or continue")
        if self.continues_adapter and self.lora is not None:
            raise UserError("backbone: adapter: continue trains the run's own adapter, so 'lora' must be null")
        if self.quantization is not None and not self.continues_adapter:
            raise UserError(
                "backbone: weights of a checkpoint cannot be quantized: export the run and give a PretrainedBackbone"
            )

    @property
    def continues_adapter(self) -> bool:
        """Whether training goes on with the adapters of the run."""
        return self.adapter == "continue"

    @property
    def tokenizer_name(self) -> str | None:
        """Where the tokenizer of the run lies."""
        found = find_checkpoint(self.path)
        return tokenizer_folder(found, self.about(), self._grant)

    @property
    def _grant(self) -> Grant:
        bases = [self.base] if isinstance(self.base, str) else self.base or ()
        return Grant(self.trust_remote_code, tuple(bases))

    @property
    def _merges_adapter(self) -> bool:
        """Whether the run trained adapters that become part of the weights."""
        base: Any = rebuild_backbone(self.about(), self._grant)
        return not self.continues_adapter and (base.lora is not None or base.continues_adapter)

    def about(self) -> dict[str, Any]:
        """What the run noted about its model.

        Raises:
            UserError: if there is no such run, or it trained another kind of model.
        """
        about = describe(find_checkpoint(self.path), self.part)
        if "backbone" not in about:
            raise UserError(
                f"backbone: part '{self.part}' of '{self.path}' is no model of its own; a module begins with it by "
                f"parts.{self.part}.start"
            )
        if other := next((kind for kind in self.refused if kind in about), None):
            raise UserError(
                f"backbone: '{self.path}' is a run of {about['method']}, and its {other} model does not predict tokens;"
                " give a run of a language model"
            )
        return about

    def _opened(self) -> dict[str, Any]:
        return part_of(open_checkpoint(find_checkpoint(self.path)), self.part)

    def run_base(self) -> Any:
        """The backbone that the run had, as this one is to be loaded."""
        base: Any = rebuild_backbone(self.about(), self._grant)
        if self.continues_adapter and base.lora is None and not base.continues_adapter:
            raise UserError(f"backbone: '{self.path}' was trained without LoRA: there is no adapter to continue")
        return replace(base, **self._changes(), compile=False, gradient_checkpointing=False)

    def _changes(self) -> dict[str, Any]:
        changes: dict[str, Any] = {"attn_implementation": self.attn_implementation}
        if self.dtype != "auto":
            changes["dtype"] = self.dtype
        return changes | {"quantization": self.quantization} if self.continues_adapter else changes

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The trained model with its adapters merged; or the base of adapters that are continued."""
        require_same_tokenizer(self.about()["tokenizer_sha256"], tokenizer_sha256(tokenizer))
        if self.continues_adapter:
            base = TrainedBackbone.run_base(self)  # of a reward backbone the run's own, which its notes are about
            require_same_base(self.about()["fingerprint"], base.fingerprint(bare := base.load(tokenizer)))
            return bare
        opened, changes = self._opened(), self._changes()
        if self._merges_adapter:  # into the base that they were trained on: in the run's own type, rounded once
            changes.pop("dtype", None)
        dtype = None if self.dtype == "auto" else getattr(torch, self.dtype)
        model: Any
        model, rounding = merged(rebuild_model(opened, tokenizer, self._grant, **changes), dtype)
        if rounding.share > TOLD:
            rank_zero_warn(f"run '{self.path}': {rounding}")
        model.config._name_or_path = self.path  # what fresh adapters belong to is not what the run began with
        return model.requires_grad_(True)

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture of the run's base, or of what it becomes when adapters are merged."""
        base = self.run_base()
        model = base.skeleton(tokenizer)
        return merged(base.attach(model))[0].requires_grad_(True) if self._merges_adapter else model

    def configuration(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig | None:
        """That of the run."""
        return self.run_base().configuration(tokenizer)

    def attach(self, model: PreTrainedModel) -> Any:
        """The model with fresh adapters, or with those of the run; under the meta device these have no values."""
        if not self.continues_adapter:
            return super().attach(model)
        adapted = self.run_base().attach(model)
        if not next(model.parameters()).is_meta:
            load_trained(adapted, self._opened(), self.replaceable)
        return adapted

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """Configuration, and every trained weight of the run down to the first base of the chain."""
        mark = fingerprint(model, self.path, pretrained=False)
        trained = self.files_sha256()
        return mark | {"tensor": "trained weights", "tensor_sha256": trained, "files_sha256": trained}

    def files_sha256(self) -> str:
        """Hash of the same weights."""
        found = find_checkpoint(self.path)
        return _chain_sha256(found, self.part, found.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _chain_sha256(found: Path, part: str, written_ns: int) -> str:
    """Hash of a part's weights in a checkpoint; kept, because it reads all of them (`written_ns` tells a new file)."""
    opened = part_of(open_checkpoint(found), part)
    weights = weights_of(opened, MAIN)
    base = opened["language_model"]["fingerprint"]
    beneath = [str(base.get(key)) for key in ("config_sha256", "tensor_sha256", "adapter_sha256")]
    return f"{weights_sha256(weights)}:{':'.join(beneath)}"
