"""Fully sharded models (FSDP2): a model whose weights, gradients and optimizer state are spread over ranks.

Knows device meshes and nothing of training. No rank but the first ever holds the whole model, and no accelerator does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.adapters import base_of
from lm.backbones.backbone import Backbone
from lm.backbones.blocks import decoder_blocks
from text.errors import UserError


def build_sharded(
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    mesh: DeviceMesh,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a model on rank 0 and send every rank its share.

    Blocks are sharded one by one, then the root with what is left (embeddings, tied or not, and the output layer), so
    that a forward pass gathers one block at a time.

    Args:
        backbone: what to build.
        tokenizer: whose ids it will read.
        mesh: of Lightning's ModelParallelStrategy, with a ``data_parallel`` dimension.
        prepare: what else is done to the built model, with and without weights, before it is sharded.

    Returns: the sharded model, and the fingerprint of the whole one.

    Raises:
        UserError: if the mesh asks for tensor parallelism, which no model here is written for.
    """
    if mesh.ndim > 1 and mesh["tensor_parallel"].size() > 1:
        raise UserError("tensor parallelism is not supported: set tensor_parallel_size to 1")
    whole = backbone.build(tokenizer) if dist.get_rank() == 0 else None
    mark = [None if whole is None else backbone.fingerprint(whole)]
    dist.broadcast_object_list(mark)
    if whole is not None:
        prepare(whole)
    model = _empty(backbone, tokenizer, mesh["data_parallel"], prepare)
    state = {} if whole is None else whole.state_dict()
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    _send_buffers(whole, model)
    require_finite_weights(model)
    return model, mark[0]  # type: ignore[return-value]


def frozen_twin(
    model: nn.Module,
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    mesh: DeviceMesh,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> nn.Module:
    """A second model with the weights of one that `build_sharded` made, sharded alike, in eval mode and frozen.

    It has a root of its own: its forward passes gather its own weights.
    """

    def frozen(twin: nn.Module) -> None:
        prepare(twin)
        twin.requires_grad_(False)  # before it is sharded: gathered weights take after what they are gathered from

    twin = _empty(backbone, tokenizer, mesh["data_parallel"], frozen)
    with torch.no_grad():
        for own, other in zip(twin.parameters(), model.parameters(), strict=True):
            own.to_local().copy_(other.to_local())  # type: ignore[attr-defined]
        for own_buffer, other_buffer in zip(twin.buffers(), model.buffers(), strict=True):
            own_buffer.copy_(other_buffer)
    return twin.eval()


def _empty(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, mesh: DeviceMesh, prepare: Callable[[nn.Module], None]
) -> nn.Module:
    """This rank's share of the model, with nothing in it yet."""
    with torch.device("meta"):
        model = backbone.finish(backbone.skeleton(tokenizer))
        prepare(model)
    for block in decoder_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=_device(mesh))
    base_of(model).tie_weights()
    return model


def _send_buffers(whole: nn.Module | None, model: nn.Module) -> None:
    """Rotary frequencies, embedding scales and the like: computed by constructors, so that meta has lost them."""
    held = {} if whole is None else dict(whole.named_buffers())
    for name, buffer in model.named_buffers():
        if whole is not None:
            buffer.copy_(held[name])
        dist.broadcast(buffer, src=0)


def shard_heads(module: nn.Module, names: Iterable[str], mesh: DeviceMesh) -> None:
    """Make what stands beside sharded models one thing on all ranks, with the values of the first.

    Nothing else reduces its gradients: each rank would train its own. A module is sharded as the models are, so that it
    computes with whole weights when it is called. Single parameters, which nobody calls, are kept whole by every rank,
    and read through `whole`. What is frozen is only sent.

    Args:
        module: that has them.
        names: of its attributes.
        mesh: as for `build_sharded`.
    """
    mesh = mesh["data_parallel"]
    for name in names:
        head = getattr(module, name)
        if isinstance(head, nn.Parameter):
            shared = distribute_tensor(head.detach(), mesh, [Replicate()])
            setattr(module, name, nn.Parameter(shared if head.requires_grad else shared.to_local(), head.requires_grad))
            continue
        head.to(_device(mesh))
        for tensor in (*head.parameters(), *head.buffers()):
            dist.broadcast(tensor.detach(), src=0)
        if any(p.requires_grad for p in head.parameters()):
            fully_shard(head, mesh=mesh)


def whole(parameter: Tensor) -> Tensor:
    """The values of a parameter, also of one that is spread over ranks; its gradient is the mean over ranks."""
    if not isinstance(parameter, DTensor):
        return parameter
    values = parameter.full_tensor(grad_placements=[Partial()])
    if values.requires_grad:
        ranks = parameter.device_mesh.size()
        values.register_hook(lambda gradient: gradient / ranks)
    return values


def require_finite_weights(model: nn.Module) -> None:
    """Memory that was never written shows as nan or inf sooner or later; better at once.

    Raises:
        RuntimeError: naming the tensor.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if local.is_floating_point() and not torch.isfinite(local).all():
            raise RuntimeError(f"{name} is not finite after the model was sharded")


def _device(mesh: DeviceMesh) -> torch.device:
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.accelerator.current_device_index())
