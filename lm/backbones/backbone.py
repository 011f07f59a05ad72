"""Backbones: which language model a method is built on, as plain values, and how to build it.

A backbone is a description; `build` makes an unchanged Hugging Face model of it, ready to train. It does not know what
the model is trained for, nor over which devices it is spread (lm/backbones/sharding.py).

Annotations are types here, not strings: other files' classes inherit these constructors, and a parser that reads the
strings looks for their names in those files.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as ARCHITECTURES

from lm.backbones.adapters import LoRA, PublishedAdapter, Quantization
from lm.backbones.blocks import decoder_blocks
from lm.backbones.dtypes import Dtype, checked_dtype
from lm.backbones.fingerprint import fingerprint, weight_files_sha256
from lm.backbones.merged_adapters import TOLD, merged
from lm.backbones.vocabulary import grow_vocabulary
from lm.files.hyperparameters import public_name
from lm.files.names import asked_of, is_local, resolve
from lm.files.weight_files import require_own_files
from lm.tokens.tokenizer import PretrainedTokenizer, check_vocabulary, vocabulary_size
from text.errors import UserError
from text.suggestions import did_you_mean

Attention = Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"]


class Backbone(ABC):
    """A model to be built, by default a causal language model; what every kind of backbone has in common.

    Attributes:
        auto: the class of transformers that finds the architecture.
        task: what peft calls its use.
        replaceable: prefixes of weights that a file may lack, because nothing reads them.
        begins_with: the arguments that say what it begins with: paths, or names of what is published.
    """

    auto: ClassVar[Any] = AutoModelForCausalLM
    task: ClassVar[str] = "CAUSAL_LM"
    replaceable: ClassVar[tuple[str, ...]] = ()
    begins_with: ClassVar[tuple[str, ...]] = ()

    lora: LoRA | None
    quantization: Quantization | None
    gradient_checkpointing: bool
    compile: bool

    @property
    @abstractmethod
    def tokenizer_name(self) -> str | None:
        """Where the model's own tokenizer lies; None if it has none."""

    @property
    def continues_adapter(self) -> bool:
        """Whether its adapters come trained: without them it is not the model that training begins with."""
        return False

    def tokenizer_at(self, name: str) -> PretrainedTokenizer:
        """What reads the tokenizer in a folder or repository, as models of this kind need it."""
        return PretrainedTokenizer(name)

    @abstractmethod
    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model with its weights."""

    @abstractmethod
    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model under ``torch.device("meta")``: the same parameters, without weights."""

    def build(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """The model, ready to train: in train mode, without a cache, with adapters if asked for.

        Args:
            tokenizer: whose ids the model will read.

        Returns: a `PreTrainedModel`, or a `PeftModel` around one.

        Raises:
            UserError: if there is no such model, or it cannot do what was asked of it.
        """
        return self.finish(self.load(tokenizer))

    def finish(self, model: PreTrainedModel) -> Any:
        """All that `build` does after loading."""
        model.config.use_cache = False  # with one, transformers lets packed documents see each other
        if self.quantization is not None:
            self.quantization.freeze(model)
        finished = self.attach(model)
        if self.gradient_checkpointing:
            if not model.supports_gradient_checkpointing:
                raise UserError(f"{type(model).__name__} cannot do gradient_checkpointing: set it to false")
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        if self.compile:
            for block in decoder_blocks(model):
                block.compile()  # in place: names in the state dict stay as they are
        return finished.train()  # from_pretrained leaves it in eval mode, and Lightning would keep that

    def attach(self, model: PreTrainedModel) -> Any:
        """The model with the adapters that are trained, or as it is."""
        return model if self.lora is None else self.lora.attach(model, self.task)

    def configuration(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig | None:
        """The transformers configuration, without building anything; None where that cannot be had."""
        return None

    @abstractmethod
    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """What tells the base of a built model from others (lm/backbones/fingerprint.py)."""

    def beginnings(self) -> dict[str, str]:
        """What it begins with, by the arguments that say so."""
        given = {option: getattr(self, option) for option in self.begins_with}
        return {option: name for option, name in given.items() if name is not None}

    def files_sha256(self) -> str | None:
        """Hash of what it begins with on this disk; None if nothing of it lies there."""
        return None

    def plain(self) -> dict[str, Any]:
        """The description in plain values, as a config gives it: ``class_path`` and ``init_args``."""
        return {"class_path": public_name(type(self)), "init_args": asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class PretrainedBackbone(Backbone):
    """A published model.

    Args:
        name_or_path: hub id, or a local folder made by `save_pretrained`.
        revision: branch, tag or commit of the hub repository; many keep intermediate training steps there.
        dtype: of the weights; ``auto`` takes that of the file. Weights that are trained belong in float32 (with
            ``--trainer.precision bf16-mixed`` on a GPU); a frozen base under LoRA may be bfloat16.
        lora: train adapters instead of the weights.
        quantization: keep the frozen base in few bits; training then needs ``lora``.
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
        compile: compile each decoder block; takes minutes at the start, for long runs on a GPU.
        attn_implementation: ``auto`` takes the best that the architecture has without further packages.
        trust_remote_code: run Python code that comes with the weights.
        adapter: hub id or folder of a published LoRA adapter of this model. It is what training goes on with (then
            ``lora`` is null), or part of the base, see below.
        merge_adapter: put the adapter into the weights before anything else happens. Then all weights are trained, or
            fresh adapters if ``lora`` asks for them.
        grow_vocabulary: give tokens that were added to the tokenizer rows of their own, the mean of those that are
            there. Under ``lora`` they stay as they begin.
    """

    name_or_path: str
    revision: str | None = None
    dtype: Dtype = "float32"
    lora: LoRA | None = None
    quantization: Quantization | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    attn_implementation: Attention = "auto"
    trust_remote_code: bool = False
    adapter: str | None = None
    merge_adapter: bool = False
    grow_vocabulary: bool = False

    begins_with: ClassVar[tuple[str, ...]] = ("name_or_path", "adapter")

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        resolve(self.name_or_path, "model")
        object.__setattr__(self, "dtype", checked_dtype(self.dtype, "auto"))
        if self.continues_adapter and self.lora is not None:
            raise UserError(
                "backbone: 'adapter' is what is trained, so 'lora' must be null; for fresh adapters on top of it, "
                "set merge_adapter: true"
            )
        if self.adapter is not None and self.merge_adapter and self.quantization is not None:
            raise UserError("backbone: an adapter cannot be merged into quantized weights: set merge_adapter: false")

    @property
    def continues_adapter(self) -> bool:
        """Whether training goes on with the published adapter."""
        return self.adapter is not None and not self.merge_adapter

    @property
    def tokenizer_name(self) -> str | None:
        """The model's own tokenizer lies beside its weights."""
        return self.name_or_path

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """Configuration and weights as published, with the adapter that was merged."""
        mark = fingerprint(model, self.name_or_path, pretrained=True) | {"files_sha256": self.files_sha256()}
        if self.adapter is None or not self.merge_adapter:
            return mark
        return mark | {"adapter_sha256": PublishedAdapter(self.adapter).sha256()}

    def files_sha256(self) -> str | None:
        """Hash of the weights in the folders of model and adapter; None if both are published."""
        folders = [resolve(name, option) for option, name in self.beginnings().items() if is_local(name)]
        return weight_files_sha256(*map(Path, folders))

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model with its weights; files that do not hold all of them are refused."""
        name = resolve(self.name_or_path, "model")
        if Path(name, "adapter_config.json").is_file():
            raise UserError(f"'{name}' holds an adapter, not a model: give its base, and this folder as 'adapter'")
        require_own_files(Path(name))
        options: dict[str, Any] = {}
        if self.quantization is not None:
            compute = torch.bfloat16 if self.dtype == "auto" else getattr(torch, self.dtype)
            options["quantization_config"] = self.quantization.config(compute)
            options["device_map"] = {"": torch.get_default_device()}
        with asked_of(name, self.attn_implementation) as attention:
            loaded: Any = self.auto.from_pretrained(
                name,
                revision=self.revision or "main",
                dtype=self.dtype,
                attn_implementation=attention,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
                **options,
            )
        model, info = loaded
        # transformers would fill them with random numbers
        if missing := sorted(key for key in info["missing_keys"] if not key.startswith(self.replaceable)):
            raise UserError(f"'{name}' lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}")
        if self.grow_vocabulary:
            grow_vocabulary(model, vocabulary_size(tokenizer))
        check_vocabulary(model.get_input_embeddings().weight.shape[0], tokenizer, f"model '{name}'")
        return self._with_merged_adapter(model)

    def _with_merged_adapter(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with the published adapter in its weights, all of which can be trained; without one as it is."""
        if self.adapter is None or not self.merge_adapter:
            return model
        whole: Any
        whole, rounding = merged(PublishedAdapter(self.adapter).attach(model, self.task))
        if rounding.share > TOLD:
            rank_zero_warn(f"adapter '{self.adapter}': {rounding}")
        whole.config._name_or_path += f" with {self.adapter}"  # fresh adapters do not belong to the bare model
        return whole.requires_grad_(True)

    def configuration(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
        """As published."""
        name = resolve(self.name_or_path, "model")
        with asked_of(name, self.attn_implementation):
            return AutoConfig.from_pretrained(
                name, revision=self.revision or "main", trust_remote_code=self.trust_remote_code
            )

    def attach(self, model: PreTrainedModel) -> Any:
        """The model with fresh adapters, or with the published one to go on with."""
        if self.adapter is None or not self.continues_adapter:
            return super().attach(model)
        return PublishedAdapter(self.adapter).attach(model, self.task)

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture, from its configuration alone."""
        if self.quantization is not None:
            raise UserError("quantized weights cannot be sharded over ranks: use --trainer.strategy ddp")
        name = resolve(self.name_or_path, "model")
        with asked_of(name, self.attn_implementation) as attention:
            config, trust = self.configuration(tokenizer), self.trust_remote_code
            dtype = config.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
            model = self.auto.from_config(config, dtype=dtype, attn_implementation=attention, trust_remote_code=trust)
        if self.grow_vocabulary:
            grow_vocabulary(model, vocabulary_size(tokenizer))
        return self._with_merged_adapter(model)  # which may have other parts than its base


@dataclass(frozen=True)
class ScratchBackbone(Backbone):
    """A model with random weights, of any architecture that transformers knows.

    Vocabulary size and special ids come from the tokenizer.

    Args:
        architecture: the ``model_type`` of a transformers causal language model (llama, qwen3, gpt2, ...).
        config: its configuration (hidden_size, num_hidden_layers, ...). ``vocab_size`` may be given to make room
            beyond the tokenizer's entries.
        dtype: of the weights.
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
        compile: compile each decoder block; takes minutes at the start, for long runs on a GPU.
        attn_implementation: ``auto`` takes the best that the architecture has without further packages.
    """

    architecture: str
    config: dict[str, Any]
    dtype: Dtype = "float32"
    gradient_checkpointing: bool = False
    compile: bool = False
    attn_implementation: Attention = "auto"

    architectures: ClassVar[Any] = ARCHITECTURES
    kind: ClassVar[str] = "a causal language model"
    lora = None
    quantization = None

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        object.__setattr__(self, "dtype", checked_dtype(self.dtype))
        if self.architecture not in self.architectures:
            raise UserError(
                f"backbone: 'architecture' {self.architecture!r} is not {self.kind} of transformers."
                + did_you_mean(str(self.architecture), self.architectures)
            )
        if not isinstance(self.config, dict):
            raise UserError(f"backbone: 'config' is {self.config!r}; give the sizes of the model (hidden_size, ...)")
        # transformers takes any key and ignores those it does not know
        default = AutoConfig.for_model(self.architecture)
        known = {*default.to_dict(), *default.attribute_map, "rope_theta", "rope_scaling", "layer_types"}
        for key in self.config:
            if key not in known:
                raise UserError(f"backbone: no 'config' key {key!r} in {self.architecture}." + did_you_mean(key, known))
            if key in ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "dtype", "model_type"):
                raise UserError(f"backbone: 'config' must not set {key!r}: the tokenizer or the backbone decides it")

    @property
    def tokenizer_name(self) -> str | None:
        """A scratch model has no tokenizer of its own."""
        return None

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """Configuration only: a checkpoint holds all the weights."""
        return fingerprint(model, f"{self.architecture} from scratch", pretrained=False)

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model; its weights are drawn from torch's random state."""
        model_config = self.configuration(tokenizer)
        with asked_of(self.architecture, self.attn_implementation) as attention:
            dtype = getattr(torch, self.dtype)
            options = {"dtype": dtype, "attn_implementation": attention, "trust_remote_code": False}
            return self.auto.from_config(model_config, **options)

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The same: on the meta device nothing is drawn."""
        return self.load(tokenizer)

    def configuration(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
        """As it is asked for, for a tokenizer."""
        size = self.config.get("vocab_size", vocabulary_size(tokenizer))
        check_vocabulary(size, tokenizer, "backbone: 'vocab_size'")
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        ids = {
            "vocab_size": size,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": eos,
            # the embedding of the pad id is never trained: a token that means something must not be it
            "pad_token_id": None if pad in (eos, tokenizer.bos_token_id) else pad,
        }
        try:
            return AutoConfig.for_model(self.architecture, **{**self.config, **ids})
        except Exception as error:  # the strict dataclasses of huggingface_hub derive from Exception
            said = " ".join(str(error).split())
            raise UserError(f"backbone: {self.architecture} does not accept this 'config': {said}") from error
