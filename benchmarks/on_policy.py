"""A whole on-policy step (write, judge, update) of 16 prompts x 2 answers: `main.py fit` against TRL's trainers.

    python benchmarks/on_policy.py             minutes on one core
    python benchmarks/on_policy.py --quick     does it work here?

- dpo: SelfJudge against OnlineDPOTrainer; grpo: GRPO against GRPOTrainer. Both sides take the same model and prompts,
  write answers of the same length (a model with random weights hardly ever ends one), and have them judged by the same
  program, since TRL's trainers take no judge of pairs. In float32, with the fused AdamW, without accumulation.
- Equal numbers first: the log-probs of the answers that TRL's trainer drew at its first step are recomputed by forests.
- The first step warms up and is left out. Each way runs in a process of its own, for its peak of memory; that includes
  what its imports hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from benchmarks.clock import add_threads, unit, use_threads
from benchmarks.dpo_trainers import TRAINING, fit, save_model, word_tokenizer
from benchmarks.peak_memory import peak_kibibytes
from benchmarks.turns import OURS, TheirSteps, Turns

LARGEST_GAP = 1e-4  # of log-probs in float32
THEIRS = "theirs"


def worth(request: Any, response: str) -> float:
    """What an answer is worth: a program, cheap, and of different worth for different answers."""
    return float(sum(hash_of(word) % 2 for word in response.split()))


def hash_of(word: str) -> int:
    """Of w17: 17."""
    return int(word[1:]) if word[1:].isdigit() else 0


def ours(options: argparse.Namespace, folder: Path, turns: Turns) -> dict[str, Any]:
    """By the command line."""
    written = {"max_new_tokens": options.answer, "temperature": 1.0, "top_p": 1.0}  # as TRL's trainers by default
    program = {"class_path": "ProgrammaticJudge", "init_args": {"other": "benchmarks.on_policy.worth"}}
    given: dict[str, Any] = {"decoding": written, "num_samples": 2}
    given |= {"judge": program, "judged_pairs": 0} if options.method == "dpo" else {"reward": program}
    data = {
        "class_path": "JudgedPrompts" if options.method == "dpo" else "RewardedPrompts",
        "init_args": {"train": str(folder / "prompts.jsonl"), "batch_size": options.prompts, "max_prompt_length": None},
    }
    method = {"class_path": "SelfJudge" if options.method == "dpo" else "GRPO", "init_args": given}
    fit(method, data, folder, options.rounds + 1, turns)
    return {}


def theirs(options: argparse.Namespace, folder: Path, turns: Turns) -> dict[str, Any]:
    """By TRL's trainer, which keeps the log-probs of the answers of its first step."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def model() -> Any:
        return AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32", attn_implementation="sdpa")

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [worth(None, text) for text in completions]

    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    given: dict[str, Any] = {"train_dataset": Dataset.from_list(prompts), "callbacks": [TheirSteps(turns, THEIRS)]}
    given["processing_class"] = AutoTokenizer.from_pretrained(folder / "model", padding_side="left")
    shared = TRAINING | {"output_dir": str(folder / "trl"), "max_steps": options.rounds + 1, "temperature": 1.0}
    trainer = (online_dpo if options.method == "dpo" else grpo)(options, model, reward, shared, given)
    kept = keep_first(trainer, "_forward" if options.method == "dpo" else "_get_per_token_logps_and_entropies")
    trainer.train()
    return kept


def online_dpo(options: argparse.Namespace, model: Callable, reward: Callable, shared: dict, given: dict) -> Any:
    """OnlineDPOTrainer, ready to go."""
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    longest = options.prompt + options.answer
    arguments = OnlineDPOConfig(
        per_device_train_batch_size=options.prompts, max_new_tokens=options.answer, max_length=longest, **shared
    )
    return OnlineDPOTrainer(model(), model(), reward, arguments, **given)


def grpo(options: argparse.Namespace, model: Callable, reward: Callable, shared: dict, given: dict) -> Any:
    """GRPOTrainer, ready to go."""
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        per_device_train_batch_size=2 * options.prompts,
        num_generations=2,
        max_completion_length=options.answer,
        beta=0.0,
        **shared,
    )
    return GRPOTrainer(model(), reward, arguments, **given)


def keep_first(trainer: Any, name: str) -> dict[str, Any]:
    """Has a trainer keep tokens and log-probs of the first call of its forward.

    Returns: a dict that is filled then: ``rows`` of [prompt, answer, log-probs of the answer].
    """
    forward = getattr(trainer, name)
    kept: dict[str, Any] = {}

    def kept_forward(model: Any, *given: Any, **more: Any) -> Any:
        found = forward(model, *given, **more)
        if not kept:
            if name == "_forward":
                prompts, prompt_mask, answers, answer_mask = given[:4]
                logprobs = found
            else:
                ids, mask, width = given[:3]
                prompts, prompt_mask = ids[:, :-width], mask[:, :-width]
                answers, answer_mask, logprobs = ids[:, -width:], mask[:, -width:], found[0]
            rows = zip(prompts, prompt_mask.bool(), answers, answer_mask.bool(), logprobs.detach(), strict=True)
            kept["rows"] = [[p[m].tolist(), a[n].tolist(), own[n].tolist()] for p, m, a, n, own in rows]
        return found

    setattr(trainer, name, kept_forward)
    return kept


def gap(rows: list[list[list]], folder: Path) -> float:
    """The largest difference between log-probs that TRL's trainer computed and those of a forest."""
    from lm.backbones.backbone import PretrainedBackbone
    from lm.forests.answer_forests import answer_forest
    from lm.scoring.logprobs import forest_logprobs
    from lm.tokens.tokenizer import PretrainedTokenizer

    where = str(folder / "model")
    model = PretrainedBackbone(where).build(PretrainedTokenizer(where).build([])).eval()
    asked = [tuple(prompt) for prompt, _, _ in rows]
    order = sorted(range(len(rows)), key=lambda row: asked[row])  # answers to one prompt side by side
    forest = answer_forest(
        [(np.array(rows[row][0]), np.array(rows[row][1])) for row in order],
        [sorted(set(asked)).index(asked[row]) for row in order],
    )
    with torch.no_grad():
        found = forest_logprobs(model, forest)[forest.path_targets]
    return (found - torch.tensor([value for row in order for value in rows[row][2]])).abs().max().item()


def measured(options: argparse.Namespace, folder: Path, way: str) -> dict[str, Any]:
    """One way of one method, in a process of its own."""
    call = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--options", json.dumps(vars(options))]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def row(options: argparse.Namespace, folder: Path, name: str) -> None:
    """Measure both ways, and print what came out."""
    found = {way: measured(options, folder, way) for way in (THEIRS, OURS)}
    difference = gap(found[THEIRS]["rows"], folder)
    if difference > LARGEST_GAP:
        raise AssertionError(f"log-probs differ by {difference:.1e}")
    seconds = [statistics.median(found[way]["seconds"]) for way in (OURS, THEIRS)]
    peaks = [found[way]["peak"] / 2**10 for way in (OURS, THEIRS)]
    told = f"{seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.2f}"
    print(f"| {name} | {told} | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.2f} |", flush=True)


def main() -> None:
    """Print the table; with ``--way`` run one way, for a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, short answers, two steps")
    parser.add_argument("--rounds", type=int, help="steps that count; default 3, or 1 with --quick")
    parser.add_argument("--way", choices=[OURS, THEIRS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--options", help=argparse.SUPPRESS)
    add_threads(parser)
    options = parser.parse_args()
    way, folder = options.way, options.folder
    if way:
        vars(options).update(json.loads(options.options))
    use_threads(options)
    if way:
        turns, ways = Turns([way]), {OURS: ours, THEIRS: theirs}
        found = ways[way](options, Path(folder), turns)
        print("\n" + json.dumps({"seconds": turns.seconds[way][1:], "peak": peak_kibibytes(), **found}))
        return
    sizes = {"width": 64, "layers": 2, "prompts": 4, "prompt": 32, "answer": 8} if options.quick else {}
    vars(options).update({"width": 256, "layers": 6, "prompts": 16, "prompt": 128, "answer": 64} | sizes)
    options.rounds = options.rounds or (1 if options.quick else 3)
    print(f"torch {torch.__version__}, {unit()}, {options.layers} layers of {options.width}, {options.rounds} steps")
    print("| a step of | ours, s | TRL, s | ratio | ours, MiB | TRL, MiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        save_model(folder / "model", word_tokenizer(), options.layers, options.width)
        rng = np.random.default_rng(0)
        asked = rng.integers(0, 30000, (options.prompts * (options.rounds + 1), options.prompt))
        lines = [json.dumps({"prompt": " ".join(f"w{word}" for word in words)}) for words in asked]
        (folder / "prompts.jsonl").write_text("".join(f"{line}\n" for line in lines))
        shape = f"{options.prompts} prompts of {options.prompt} tokens, 2 answers of {options.answer}"
        for options.method, name in (("dpo", "online DPO"), ("grpo", "GRPO")):
            row(options, folder, f"{name}, {shape}")


if __name__ == "__main__":
    main()
