"""One of several ranks that torchrun starts: runs one `fit` after another, for the processes take longer to start.

The first that fails ends its process, and torchrun the others. Not a test: tests/reliability/test_overlays.py calls it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from cli import main


def run(jobs: list[list[str]]) -> None:
    """Each job is a command line; rank 0 notes what it took."""
    sys.argv = ["main.py"]
    warnings.filterwarnings("error", message=".*they never move.*")
    for arguments in jobs:
        began = time.perf_counter()
        try:
            trainer = main(arguments).trainer
            assert trainer.global_step == trainer.max_steps
            assert trainer.world_size == int(os.environ["WORLD_SIZE"])
        except BaseException:
            print("failed: main.py", *arguments, flush=True)
            traceback.print_exc()
            os._exit(1)  # the other rank may be waiting for this one
        if os.environ["RANK"] == "0":
            print(f"{time.perf_counter() - began:.1f} s: {' '.join(arguments)}", flush=True)


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
