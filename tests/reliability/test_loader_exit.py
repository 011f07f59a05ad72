"""A process that ends with batches on their way ends: after Ctrl-C, and after an exit in the middle."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

FIT = """
import signal, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
from lightning.pytorch import LightningModule, Trainer
from datamodules.loading import ResumableLoader

class Slow(LightningModule):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        print("step", batch_idx, flush=True)
        return self.line(batch).sum()
    def train_dataloader(self):
        return ResumableLoader(lambda at: time.sleep(0.2) or torch.ones(1, 1), 10**6, self.trainer, ahead=50)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu").fit(Slow())
"""

EXIT = """
import sys, time
from datamodules.loading import ResumableLoader
for number in ResumableLoader(lambda at: time.sleep(0.2) or at.number, 10**6, ahead=2):
    if number == 3:
        sys.exit(7)
"""


def started(program: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_ctrl_c_ends_a_run_and_lets_go_of_the_batches_that_were_asked_for():
    with started(FIT) as process:
        assert any(line.startswith("step 2") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1  # Lightning's code after Ctrl-C


def test_an_exit_in_the_middle_keeps_its_code():
    with started(EXIT) as process:
        assert process.wait(120) == 7
