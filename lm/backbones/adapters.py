"""How much of a backbone is trained, and in how many bits the rest is kept: LoRA and quantisation as plain values.

Knows peft and bitsandbytes, which are imported only when asked for, and nothing of where the weights come from.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lm.files.names import not_loaded, resolve
from text.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel


def is_adapted(model: nn.Module) -> bool:
    """Whether a model is a `PeftModel`, without the seconds that importing peft takes."""
    return hasattr(model, "get_base_model")


def base_of(model: Any) -> Any:
    """The model that adapters were attached to; a bare model is its own."""
    return model.get_base_model() if is_adapted(model) else model


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters instead of full fine-tuning (arXiv 2106.09685): the base stays frozen.

    Args:
        r: rank of the update.
        alpha: scale; the update is multiplied by ``alpha / r``.
        dropout: probability of dropping an input of the adapters.
        target_modules: names of the linear layers that get one, or ``all-linear`` (all but the output layer).
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if not isinstance(self.r, int) or self.r < 1:
            raise UserError(f"lora: 'r' is {self.r!r}; it must be a whole number, 1 or more")
        if not isinstance(self.alpha, int | float) or self.alpha <= 0:
            raise UserError(f"lora: 'alpha' is {self.alpha!r}; it must be positive")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise UserError(f"lora: 'dropout' is {self.dropout!r}; it must lie in [0, 1)")

    def attach(self, model: PreTrainedModel, task: str = "CAUSAL_LM") -> PeftModel:
        """The model with adapters that change nothing yet; only they can be trained.

        Raises:
            UserError: if ``target_modules`` names no layer of the model.
        """
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides it, any number will do
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            task_type=task,
        )
        try:
            return get_peft_model(model, config)  # type: ignore[return-value]
        except ValueError as error:
            layers = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            raise UserError(
                f"lora: 'target_modules' {self.target_modules!r} does not fit {type(model).__name__}; "
                f"its linear layers are {', '.join(layers)}"
            ) from error


@dataclass(frozen=True)
class PublishedAdapter:
    """A LoRA adapter as peft saves it.

    Args:
        name_or_path: hub id or local folder.
    """

    name_or_path: str

    def attach(self, model: PreTrainedModel, task: str, name: str = "default") -> PeftModel:
        """The model with the adapter; only the adapter can be trained. Under the meta device it has no values.

        Args:
            model: the base.
            task: what peft calls its use.
            name: of the adapter in the model.

        Raises:
            UserError: if there is no such adapter, or it does not fit the model.
        """
        from peft import get_peft_model

        config = self.config()
        config.task_type, config.inference_mode = task, False
        try:
            adapted: Any = get_peft_model(model, config, name)  # type: ignore[arg-type]
        except ValueError as error:  # no such layers
            raise UserError(f"adapter '{self.name_or_path}' is for another architecture: {error}") from error
        if not next(model.parameters()).is_meta:
            self._fill(adapted, name)
        return adapted

    def add(self, adapted: PeftModel, name: str) -> None:
        """Put the adapter beside others into a model, under a name of its own.

        Raises:
            UserError: as `attach`.
        """
        try:
            adapted.add_adapter(name, self.config())
        except ValueError as error:
            raise UserError(f"adapter '{self.name_or_path}' is for another architecture: {error}") from error
        self._fill(adapted, name)

    def _fill(self, adapted: Any, name: str) -> None:
        from peft import set_peft_model_state_dict

        try:
            absent, unknown = set_peft_model_state_dict(adapted, self._weights(), name)
        except (KeyError, RuntimeError) as error:  # other parts, other sizes
            raise UserError(f"adapter '{self.name_or_path}' is for another model: {str(error)[:300]}") from error
        own = {key for key, _ in adapted.named_parameters() if ".lora_" in key and f".{name}." in f"{key}."}
        if lost := [*(own & {*absent}), *unknown]:
            raise UserError(f"adapter '{self.name_or_path}' is for another model: {lost[0]} is amiss")

    def holds(self, ending: str) -> bool:
        """Whether it has a weight whose name ends so."""
        return any(name.endswith(ending) for name in self._weights())

    def sha256(self) -> str:
        """Hash of its weights."""
        return weights_sha256(self._weights())

    def config(self) -> LoraConfig:
        """Its options.

        Raises:
            UserError: if there is no such adapter, or it is no LoRA.
        """
        from peft import LoraConfig, PeftConfig

        try:
            config = PeftConfig.from_pretrained(resolve(self.name_or_path, "adapter"))
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise not_loaded(self.name_or_path, "adapter", error) from error
        if not isinstance(config, LoraConfig):
            raise UserError(f"adapter '{self.name_or_path}' is of kind {config.peft_type.value}; only LoRA is known")
        return config

    def _weights(self) -> dict[str, Tensor]:
        from peft import load_peft_weights

        return load_peft_weights(resolve(self.name_or_path, "adapter"), device="cpu")


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Hash of named tensors, whatever their order: names, types, shapes and every value."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Quantization:
    """Frozen base weights in 4 or 8 bits by bitsandbytes (arXiv 2305.14314, 2208.07339); runs on CPU too.

    Args:
        bits: 4 or 8 per weight.
        kind: number format of 4-bit weights.
        double: also quantise the scales of 4-bit weights.
    """

    bits: Literal[4, 8] = 4
    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.bits not in (4, 8):
            raise UserError(f"quantization: 'bits' is {self.bits!r}; it must be 4 or 8")

    def config(self, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
        """The same as transformers takes it; 4-bit weights are multiplied in ``compute_dtype``."""
        from transformers import BitsAndBytesConfig

        if self.bits == 8:
            warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")  # said at every matmul
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.kind,
            bnb_4bit_use_double_quant=self.double,
            bnb_4bit_compute_dtype=compute_dtype,
        )

    @staticmethod
    def freeze(model: nn.Module) -> None:
        """Fix the weights, also in their layout.

        On some CPUs bitsandbytes repacks 4-bit weights at the first evaluation, for good, into a form that passes no
        gradient on: training after a validation would go on without a word and learn nothing below the top layer.
        """
        model.requires_grad_(False)
        module: Any
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
