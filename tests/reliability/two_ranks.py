"""Command lines on two ranks that are started once: each runs one after another, for processes take long to start.

The first that fails ends its process, and with it the other. Tests call `on_two_ranks`; the ranks call `run`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

from cli.trainer_cli import main
from tests import warm_runs
from tests.warm_runs import ROOT


def on_two_ranks(jobs: list[list[str]], timeout: int = 400, warm: bool = True) -> None:
    """Run `main.py` with the arguments of each job, in this folder, and show what was said if one fails.

    Args:
        jobs: command lines, without the script.
        timeout: seconds for all together.
        warm: fork both ranks with everything imported; else torchrun starts two new Pythons, as on a cluster.
    """
    if warm:
        done = warm_runs.call("tests.reliability.two_ranks:run", (jobs,), Path.cwd(), ranks=2)
        assert done.wait(timeout) == 0, done.said[-12000:]
        return
    Path("jobs.json").write_text(json.dumps(jobs))
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open("said.txt", "w+", encoding="utf-8") as said:
        call = [*ranks, __file__, "jobs.json"]
        done = subprocess.run(call, env=environment, stdout=said, stderr=said, timeout=timeout, check=False)
        said.seek(0)
        assert done.returncode == 0, said.read()[-12000:]


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
