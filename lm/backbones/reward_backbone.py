"""Reward backbones: a language model with a scalar head in place of its output layer.

The same descriptions as lm/backbones/backbone.py and lm/backbones/run_backbone.py; a method asks `reward_backbone` for
the kind that belongs to what its configuration gave. Models are sequence classifiers of transformers, so that a folder
made of one is opened by ``AutoModelForSequenceClassification``. How rewards are read is said in lm/scoring/rewards.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from lm.backbones.adapters import PublishedAdapter, base_of
from lm.backbones.backbone import Backbone, PretrainedBackbone, ScratchBackbone
from lm.backbones.run_backbone import TrainedBackbone
from text.errors import UserError


class ScalarHead(nn.Linear):
    """Hidden state to reward, without a bias. Rewards are compared by differences: float32, whatever the model is."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Rewards [..., 1] of states [..., D]."""
        with torch.autocast(hidden.device.type, enabled=False):
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            return F.linear(hidden.to(wide), self.weight.to(wide))


class AutoScorer:
    """Finds the class of transformers that puts one number on a text."""

    @staticmethod
    def from_pretrained(name: str, **options: Any) -> Any:
        """As transformers' own."""
        about = {key: options[key] for key in ("revision", "trust_remote_code")}
        _require_classifier(AutoConfig.from_pretrained(name, **about))
        return AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, **options)

    @staticmethod
    def from_config(config: Any, **options: Any) -> Any:
        """As transformers' own."""
        _require_classifier(config)
        config.num_labels = 1
        return AutoModelForSequenceClassification.from_config(config, **options)


def _require_classifier(config: Any) -> None:
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not hasattr(config, "auto_map"):
        raise UserError(f"transformers has no sequence classifier for models of type {config.model_type}")


class RewardBackbone(Backbone):
    """What is the same in all kinds of reward backbones."""

    auto: ClassVar[Any] = AutoScorer
    task: ClassVar[str] = "SEQ_CLS"  # peft then trains the head as a whole and saves it beside the adapters
    replaceable: ClassVar[tuple[str, ...]] = ("score.",)

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model with its weights; a head that is in no file is drawn."""
        return scorer_of(super().load(tokenizer), tokenizer)  # type: ignore[safe-super]

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture, from its configuration alone."""
        return scorer_of(super().skeleton(tokenizer), tokenizer)  # type: ignore[safe-super]

    def attach(self, model: PreTrainedModel) -> Any:
        """The model with its adapters; the head, trained as a whole, is float32 like them, also on a bfloat16 base."""
        adapted = super().attach(model)
        for name, p in adapted.named_parameters():
            if p.requires_grad and ".score." in name:
                p.data = p.data.float()
        return adapted

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """That of the base, and whether its head has ever been trained."""
        return super().fingerprint(model) | {"head": "trained" if self.head_is_trained(model) else "drawn"}  # type: ignore[safe-super]

    def head_is_trained(self, model: nn.Module) -> bool:
        """Whether the rewards of the model as built mean anything."""
        return False

    def scale(self) -> dict[str, float] | None:
        """Mean and standard deviation of the rewards of a trained head, if they are known."""
        return None


@dataclass(frozen=True)
class PretrainedReward(RewardBackbone, PretrainedBackbone):
    """A published language model, whose head is drawn, or a published reward model."""

    def head_is_trained(self, model: nn.Module) -> bool:
        """Whether the folder, or the adapter, was that of a sequence classifier."""
        if self.adapter is not None and PublishedAdapter(self.adapter).holds("score.weight"):
            return True
        return any(name.endswith("ForSequenceClassification") for name in base_of(model).config.architectures or ())


@dataclass(frozen=True)
class ScratchReward(RewardBackbone, ScratchBackbone):
    """A model with random weights."""


@dataclass(frozen=True)
class TrainedReward(RewardBackbone, TrainedBackbone):
    """What an earlier run trained: a language model, or a reward model that is to be trained further."""

    refused: ClassVar[tuple[str, ...]] = ("encoder",)

    def run_base(self) -> Any:
        """The backbone that the run had, with a scalar head."""
        return reward_backbone(super().run_base())

    def head_is_trained(self, model: nn.Module) -> bool:
        """Whether the run was one of a reward model."""
        return "reward" in self.about()

    def scale(self) -> dict[str, float] | None:
        """As the run measured them at its last validation."""
        return self.about().get("reward")


KINDS: dict[type, type] = {
    PretrainedBackbone: PretrainedReward,
    ScratchBackbone: ScratchReward,
    TrainedBackbone: TrainedReward,
}


def reward_backbone(backbone: Any) -> Any:
    """The reward backbone with the arguments of another one; anything else comes back as it is."""
    kind = KINDS.get(type(backbone))
    return backbone if kind is None else kind(**{f.name: getattr(backbone, f.name) for f in fields(backbone)})


def scorer_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A sequence classifier with the layers of a model, or that classifier itself, ready for rewards.

    Raises:
        UserError: if transformers has none for the architecture, or one with another kind of head.
    """
    if not hasattr(model, "score"):
        with torch.device("meta"):
            options = {"dtype": model.dtype, "trust_remote_code": False}
            scorer: Any = AutoScorer.from_config(copy.deepcopy(model.config), **options)
        if type(scorer.base_model) is not type(model.base_model):
            raise UserError(f"{type(scorer).__name__} is built on other layers than {type(model).__name__}")
        setattr(scorer, scorer.base_model_prefix, model.base_model)
        scorer.config = model.config  # one object in all parts, as transformers has it
        scorer.config.num_labels = 1
        model = scorer
    model.score = _scalar_head(model)
    model.config.get_text_config().pad_token_id = padding_id(tokenizer)
    return model


def _scalar_head(model: Any) -> ScalarHead:
    """The head of a classifier; drawn if it has no values, as transformers draws its own."""
    score = getattr(model, "score", None)
    if not isinstance(score, nn.Linear) or score.bias is not None or score.out_features != 1:
        raise UserError(f"{type(model).__name__} has no linear head without bias for one number: it is {score}")
    wanted = model.base_model.get_input_embeddings().weight.device
    head = ScalarHead(score.in_features, 1, bias=False, device=wanted, dtype=score.weight.dtype)
    with torch.no_grad():
        if score.weight.is_meta and wanted.type != "meta":
            head.weight.normal_(std=model.config.get_text_config().initializer_range)
        else:
            head.weight.copy_(score.weight)
    return head


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that transformers, when it reads padded rows, may overlook at their end: never that which ends a text."""
    ids = (tokenizer.pad_token_id, tokenizer.unk_token_id)
    return next((i for i in ids if i is not None and i != tokenizer.eos_token_id), None)
