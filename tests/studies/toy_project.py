"""A project with a study, and a stand-in for main.py that finishes at once: no torch, no model."""

import json
import os
import signal
import sys
import time
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import yaml

from studies.catalogue import prepare
from studies.plan import read_study

STUDY = {
    "claim": "Fast beats slow",
    "paper": {"table 1": {"fast": 0.9, "slow": None}},
    "seeds": [1, 2, 3],
    "calibration_seed": 0,
    "development_settings_tried": 4,
    "stages": {
        "base": {"verb": "fit", "configs": "base.yaml"},
        "train": {
            "verb": "fit",
            "configs": ["base.yaml", "../trainer/cpu.yaml"],
            "set": {"seed_everything": "{seed}", "ckpt_path": "{ckpt:base}", "model.rate": 0.1},
            "needs": ["base"],
        },
        "measure": {
            "verb": "test",
            "configs": ["base.yaml"],
            "set": {"model.run": "{dir:train}", "model.seen": "{file:train/metrics.json}", "model.tag": "s{seed}"},
            "needs": ["train"],
        },
    },
    "arms": {
        "fast": {"stages": ["base", "train", "measure"], "set": {"train": {"model.rate": 0.5}}},
        "slow": {"stages": ["base", "train", "measure"]},
    },
    "statistic": {"metric": "score", "contrast": "fast - slow", "paired_by": "seed", "test": "t"},
    "criterion": {"direction": "greater", "than": 0},
    "ablations": {"still": {"stages": ["base", "train", "measure"], "set": {"train": {"model.rate": 0.0}}}},
    "quick": {"seeds": [9], "set": {"train": {"trainer.max_steps": 1}}},
}
NOISE = {1: 0.00, 2: 0.02, 3: 0.07}


class Toy:
    """The project folder, with the study as a dict to change."""

    def __init__(self, root: Path):
        self.root = root
        self.study = deepcopy(STUDY)
        (root / "configs/toy").mkdir(parents=True)
        (root / "configs/trainer").mkdir()
        (root / "lm/forests").mkdir(parents=True)
        (root / "cli").mkdir()
        (root / "lm/forests/forest.py").write_text("WIDTH = 3  # why\n")
        (root / "cli/trainer_cli.py").write_text("from lm.forests.forest import WIDTH\n")
        (root / "data.txt").write_text("once upon a time\n")
        (root / "configs/trainer/cpu.yaml").write_text("trainer: {accelerator: cpu, devices: 1}\n")
        (root / "configs/toy/base.yaml").write_text("data: {train: data.txt}\ntrainer: ../trainer/one.yaml\n")
        (root / "configs/trainer/one.yaml").write_text("accelerator: cpu\ndevices: 1\n")

    @property
    def path(self) -> Path:
        return self.root / "configs/toy/study.yaml"

    def read(self):
        self.path.write_text(yaml.safe_dump(self.study, sort_keys=False))
        return read_study(self.path)

    def work(self, **options):
        defaults = {"seeds": None, "quick": False, "calibrate": False, "ablations": False, "jobs": 1}
        return prepare(self.read(), self.root, SimpleNamespace(**defaults | options))

    def launches(self) -> list[dict]:
        """What has been started, in order."""
        log = self.root / "launches.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def launch(arguments: list[str]) -> None:
    """Stand-in for cli.main: the score of a run is its rate plus noise of its seed."""
    options = dict(part[2:].split("=", 1) for part in arguments if part.startswith("--") and "=" in part)
    home = Path(options["trainer.default_root_dir"])
    resumed = options.get("ckpt_path") == "last"
    run = home / "version_0" if resumed else home / f"version_{len(list(home.glob('version_*')))}"
    run.joinpath("checkpoints").mkdir(parents=True, exist_ok=True)
    entry = {"name": home.name, "resumed": resumed, "threads": os.environ.get("OMP_NUM_THREADS"), "argv": sys.argv}
    with Path("launches.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
    print(f"running {home.name}")
    if arguments[0] == "fit":
        (run / "checkpoints/last.ckpt").write_text("weights")
        misbehave(options.get("model.misbehave", ""))
        metrics = {
            "step": 10,
            "train/tokens": 1280,
            "rate": float(options.get("model.rate", 0)),
            "seed": options.get("seed_everything"),
        }
    else:
        trained = json.loads((Path(options["model.run"]) / "metrics.json").read_text())
        seed, rate = int(trained["seed"]), trained["rate"]
        metrics = {"score": rate + NOISE.get(seed, 0) * (1 + rate), "unsure": None}
        said = "text may hold \u2028, \u2029 and \x85"  # which end no line of JSON
        rows = [{"id": i, "right": rate * i + NOISE.get(seed, 0) * i % 3, "said": said} for i in range(8)]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (run / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    (run / "metrics.json").write_text(json.dumps(metrics))


def misbehave(how: str) -> None:
    if how == "raise":
        raise ZeroDivisionError("of all things")
    if how == "exit":
        print("records.jsonl:3: field 'id': missing")
        sys.exit(1)
    if how == "stop":
        sys.exit(0)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hang" and not Path("go").exists():
        time.sleep(0.05)
