"""Several ranks with unequal forests take the steps of one process: no rank waits for a collective that never comes."""

import functools

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lm.forests.forest import Forest, Node, Path
from lm.forests.vector_ids import VectorIds
from lm.scoring import logprobs
from lm.scoring import states as heads
from lm.scoring.logprobs import forest_logprobs, forest_logprobs_and_states, forest_states, row_logprobs
from tests.lm.forests.forest_oracle import build

pytestmark = pytest.mark.slow

WORLD = 2
CHUNK = 5  # states: the two ranks differ in how many chunks they take
MODES = {
    "ddp": {},
    "ddp-lora-head": {"lora": True},
    "fsdp": {},
    "fsdp-tied": {"tied": True},
    "fsdp-head-apart": {"head_apart": True},
    "fsdp-lora-head": {"lora": True, "head_apart": True},
}


def forests(step):
    """What each rank sees in a step. In the second, one of them has nothing to score."""
    many = [Node([3, 4, 5], [Node([6, 7 + i, 9], scored=True) for i in range(step + 2)]) for _ in range(6)]
    few = [Node([8, 9], [Node([10, 11], scored=True)])]
    return [Forest.pack(many), Forest.pack(few if step == 0 else [])]


def forests_with_more(step):
    """What each rank sees beside: one of them has no vector, nothing to score, or no path at all."""
    clip = VectorIds().run("clip", 2)
    many = [Path([3, *clip, 6, 7 + i, 9], 4, state=True) for i in range(step + 2)]
    few = [Path([8, 9, 10], 3, state=True)] if step == 0 else []
    table = torch.linspace(-1, 1, 64, dtype=torch.float64).view(2, 32)
    return [Forest.from_paths(many).with_vectors(table), Forest.from_paths(few).with_vectors(table[:0])]


def of_ranks(step):
    return [*zip(forests(step), forests_with_more(step), strict=True)]


def model_of(tied=False, lora=False, head_apart=False):
    model = build("llama", tie_word_embeddings=tied)
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def loss_of(model, forest, more, share):
    """Two forwards with gradients, a reference without, a dense row; then states, and vectors in place of tokens."""
    with torch.no_grad():
        reference = forest_logprobs(model, forest, share)
    values = forest_logprobs(model, forest, share)
    again = forest_logprobs(model, forest, share)
    loss = (values * again - reference).sum() + row_logprobs(model, torch.arange(6)[None]).sum()
    logprobs, states = forest_logprobs_and_states(model, more, share_prefixes=share)
    return loss + logprobs.sum() + (states * forest_states(model, more, share_prefixes=share)).sum()


def train(model, my_forests):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    for step in range(3):
        share = ["auto", True, False][step]
        loss = sum(loss_of(model, *seen, share) for seen in my_forests(step))
        optimizer.zero_grad()
        (loss * (WORLD if dist.is_initialized() else 1)).backward()  # ranks average, one process sums
        optimizer.step()
    return {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in model.named_parameters()}


def worker(rank, folder):
    torch.set_num_threads(1)
    heads.LOGITS_AT_ONCE, heads.MIN_CHUNK = 1, CHUNK
    logprobs.SMALL = 1  # and in how many batches of rows
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (WORLD,))
    found = {}
    for mode, options in MODES.items():
        model = model_of(**options)
        if mode.startswith("ddp"):
            model = DistributedDataParallel(model)
        else:
            causal = model.get_base_model() if options.get("lora") else model
            for layer in causal.model.layers:
                fully_shard(layer, mesh=mesh)
            if options.get("head_apart"):
                fully_shard(causal.lm_head, mesh=mesh, reshard_after_forward=True)
            fully_shard(model, mesh=mesh)
        found[mode] = {
            name.removeprefix("module."): p.detach().clone()
            for name, p in train(model, lambda step: [of_ranks(step)[rank]]).items()
        }
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.barrier()
    dist.destroy_process_group()


@functools.cache
def _alone(tied=False, lora=False):
    start = {name: p.detach().clone() for name, p in model_of(tied, lora).named_parameters()}
    return start, train(model_of(tied, lora), of_ranks)


def test_ranks_equal_one_process(tmp_path):
    torch.multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=WORLD)
    found = torch.load(tmp_path / "found.pt")
    for mode, options in MODES.items():
        start, expected = _alone(options.get("tied", False), options.get("lora", False))
        assert found[mode].keys() == expected.keys()
        for name, parameter in expected.items():
            torch.testing.assert_close(found[mode][name], parameter.detach(), atol=1e-12, rtol=0, msg=f"{mode} {name}")
            if parameter.requires_grad:
                assert (parameter - start[name]).abs().max() > 1e-5, name
