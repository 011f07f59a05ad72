"""The parts of a module: its models and heads, each with a rate of its own, or frozen, or begun elsewhere.

A part is called after its attribute, so that every parameter is in one part, and its name is where the names of the
part's weights in a checkpoint begin. A part is a model that a backbone describes, or a head: any other attribute with
parameters. This file knows parameters and checkpoints, and nothing of what parts compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.backbone import Backbone
from lm.backbones.checkpoint_parts import MAIN, notes_of_parts, part_name, part_of, weights_of
from lm.backbones.checkpoints import find_checkpoint, load_trained, open_checkpoint
from lm.backbones.fingerprint import require_same_base
from text.errors import UserError
from text.suggestions import did_you_mean


@dataclass(frozen=True)
class Part:
    """How one part of a module is trained.

    Args:
        lr: its base learning rate, on which the schedule acts as on that of the other parts; null is the optimizer's.
        frozen: leave it as it is: without gradients, in evaluation mode.
        start: a run folder or a checkpoint with a part of this name and kind, whose weights it begins with.
    """

    lr: float | None = None
    frozen: bool = False
    start: str | None = None

    def __str__(self) -> str:
        return "frozen" if self.frozen else "trained" if self.lr is None else "trained at a rate of its own"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.lr is not None and (self.frozen or self.lr < 0):
            raise UserError(f"parts: 'lr' is {self.lr!r}; a frozen part has none, and that of another is not negative")


class Parts:
    """The parts of one module; it fills when the module is configured.

    Args:
        options: by name; a part that is not named follows the optimizer.

    Attributes:
        fingerprints: of the models that backbones describe, as they were built.
    """

    def __init__(self, options: Mapping[str, Part] | None):
        self.options = dict(options or {})
        self.backbones: dict[str, Backbone] = {}
        self.fingerprints: dict[str, dict[str, Any]] = {}
        self._trainable: dict[str, set[str]] = {}  # of each part, before any of it was frozen

    def option(self, name: str) -> Part:
        """How a part is trained."""
        return self.options.get(name, Part())

    # ---------------------------------------------------------------------------------------------------- building

    def build(
        self,
        name: str,
        backbone: Backbone,
        tokenizer: PreTrainedTokenizerBase,
        mesh: DeviceMesh | None,
        prepare: Callable[[nn.Module], None],
    ) -> Any:
        """The model of a backbone as this module has it: prepared, begun and frozen as asked for, sharded over a mesh.

        Raises:
            UserError: if it cannot be built, or cannot begin where it should.
        """
        if not isinstance(backbone, Backbone):
            raise UserError(
                f"model: the backbone of '{name}' is {backbone!r}; give a Pretrained-, Trained- or ScratchBackbone"
            )

        def begin(model: nn.Module) -> None:
            prepare(model)
            if not next(model.parameters()).is_meta:
                self._load(name, model, backbone)
            self._settle(name, model)

        self.backbones[name] = backbone
        if mesh is not None:
            from lm.backbones.sharding import build_sharded

            model, self.fingerprints[name] = build_sharded(backbone, tokenizer, mesh, begin)
            return model
        model = backbone.build(tokenizer)
        self.fingerprints[name] = backbone.fingerprint(model)
        begin(model)
        return model

    def take_heads(self, module: nn.Module, mesh: DeviceMesh | None) -> None:
        """Make parts of all else that the module trains.

        Raises:
            UserError: if a part is named that the module does not have.
        """
        trained = (part_name(name) for name, p in module.named_parameters() if p.requires_grad)
        heads = [name for name in dict.fromkeys(trained) if name not in self.backbones]
        known = [*self.backbones, *heads]
        if wrong := next((name for name in self.options if name not in known), None):
            raise UserError(
                f"parts: there is no part '{wrong}'; there are {', '.join(known)}." + did_you_mean(wrong, known)
            )
        for name in heads:
            head = getattr(module, name)
            self._load_head(name, module)
            self._settle(name, head)
        if mesh is not None:
            from lm.backbones.sharding import shard_heads

            shard_heads(module, heads, mesh)

    def _settle(self, name: str, part: nn.Module | nn.Parameter) -> None:
        if isinstance(part, nn.Module):
            self._trainable[name] = {f"{name}.{n}" for n, p in part.named_parameters() if p.requires_grad}
        else:
            self._trainable[name] = {name}
        if self.option(name).frozen:
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def _load(self, name: str, model: nn.Module, backbone: Backbone) -> None:
        if (checkpoint := self._start(name)) is None:
            return
        found = part_of(checkpoint, name)
        require_same_base(found["language_model"].get("fingerprint", {}), backbone.fingerprint(model))
        load_trained(model, found, backbone.replaceable)

    def _load_head(self, name: str, module: nn.Module) -> None:
        if (checkpoint := self._start(name)) is None:
            return
        own = {n: tensor for n, tensor in module.state_dict().items() if part_name(n) == name}
        given = weights_of(checkpoint, name)
        shapes, its = ({n: tuple(tensor.shape) for n, tensor in held.items()} for held in (own, given))
        if shapes != its:
            raise UserError(f"parts: '{name}' has weights {shapes}, and in '{self.option(name).start}' it has {its}")
        with torch.no_grad():
            for n, tensor in own.items():
                tensor.copy_(given[n])

    def _start(self, name: str) -> dict[str, Any] | None:
        """The checkpoint that a part is to begin with."""
        if (start := self.option(name).start) is None:
            return None
        checkpoint = open_checkpoint(find_checkpoint(start))
        if not weights_of(checkpoint, name):
            has = sorted({part_name(n) for n in checkpoint["state_dict"]})
            raise UserError(f"parts: '{start}' holds no weights of a part '{name}', only of {', '.join(has)}")
        return checkpoint

    # ---------------------------------------------------------------------------------------------------- training

    def groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups of an optimizer: of the parts that follow its rate, then of each part with its own.

        Weight decay is not for norms, biases and other 1-D parameters, which are groups of their own.

        Raises:
            RuntimeError: if something is trained that is in no part, or that nothing shards.
        """
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        sharded = any(isinstance(p, DTensor) for _, p in trained)
        for name, p in trained:
            if part_name(name) not in self._trainable or (sharded and not isinstance(p, DTensor)):
                raise RuntimeError(f"{name} came after configure_model: nothing reduces it. Build it in build_head")
        alone = [part for part in self._trainable if self.option(part).lr is not None]
        groups: list[dict[str, Any]] = []
        for part in (None, *alone):
            own = [p for n, p in trained if (part_name(n) == part if part else part_name(n) not in alone)]
            rate = {"lr": self.option(part).lr, "part": part} if part else {}
            groups.append({"params": [p for p in own if p.ndim > 1], **rate})
            groups.append({"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0, **rate})
        return [group for group in groups if group["params"]]

    # -------------------------------------------------------------------------------------------------- checkpoints

    def kept_frozen(self) -> set[str]:
        """Names of weights that a checkpoint must hold although they are not trained: nothing else can give them back.

        Heads, random models, and what an earlier run made of a part.
        """
        frozen = [name for name in self._trainable if self.option(name).frozen]
        drawn = [name for name in frozen if "tensor_sha256" not in self.fingerprints.get(name, {})]
        begun = [name for name in frozen if self.option(name).start is not None]
        return set().union(*(self._trainable[name] for name in (*drawn, *begun)))

    def notes(self, kept: Iterable[str]) -> dict[str, Any]:
        """What a checkpoint says of the parts, plain values: of the model at the top, of the others in ``parts``.

        Args:
            kept: names of all weights that it holds; those of no part are noted as ``beside``.
        """
        noted: dict[str, dict[str, Any]] = {}
        for name in self._trainable:
            option = self.option(name)
            noted[name] = {"frozen": option.frozen, "lr": option.lr}
            if name in self.backbones:
                backbone = self.backbones[name]
                noted[name] |= {"backbone": backbone.plain(), "fingerprint": self.fingerprints[name]}
        beside = sorted({part_name(name) for name in kept} - noted.keys())
        return {**noted.pop(MAIN), "parts": noted, "beside": beside}

    def require_same(self, saved: dict[str, Any], resumed: bool) -> None:
        """Refuse a checkpoint of other parts.

        Args:
            saved: what was noted in it.
            resumed: whether its training goes on, so that its optimizer's state must fit.

        Raises:
            UserError: saying what differs.
        """
        noted = notes_of_parts(saved)
        for name, mark in self.fingerprints.items():
            if name not in noted:
                raise UserError(f"the checkpoint has no part '{name}'; it has {', '.join(noted)}")
            require_same_base(noted[name].get("fingerprint", {}), mark)
        for name in [name for name in self._trainable if resumed and name in noted]:
            then, now = Part(noted[name].get("lr"), noted[name].get("frozen", False)), self.option(name)
            if (then.frozen, then.lr is None) != (now.frozen, now.lr is None):
                raise UserError(
                    f"parts: '{name}' was {then} when the checkpoint was made, and is {now} now. A run goes on as it "
                    f"began; the next stage is a new run, in which parts.{name}.start is this one"
                )
