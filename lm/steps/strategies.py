"""Fully sharded training (FSDP2) as a strategy that needs no numbers: shards go over every rank there is.

Knows Lightning's launcher and nothing of models; which parts of a model are sharded is decided in
lm/backbones/sharding.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy

from lm.files.shards import require_plain_shards


class FullySharded(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with data parallelism only, of the size of the world.

    Args:
        save_distributed_checkpoint: each rank writes its own shard, and a checkpoint is a folder; or rank 0 gathers
            everything into one file.
        process_group_backend: nccl on GPUs and gloo on CPUs unless given.
    """

    def __init__(self, save_distributed_checkpoint: bool = True, process_group_backend: str | None = None):
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        """Counts the ranks, which are known only now."""
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = True) -> dict[str, Any]:
        """As Lightning's, of folders that hold plain things alone.

        Raises:
            UserError: if the folder could run code.
        """
        if Path(checkpoint_path).is_dir():
            require_plain_shards(checkpoint_path)
        return super().load_checkpoint(checkpoint_path, weights_only)
