"""Every config of full size with every overlay that it names: one optimizer step on two ranks, on small models.

Runs go on from one another as the configs say: what one leaves in ``runs/`` the next begins with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, OlmoConfig

from lm.backbones.checkpoints import find_checkpoint
from tests.conversation_files import jsonl
from tests.paper_scale import ROOT, Recipe, recipes
from tests.reliability.two_ranks import on_two_ranks
from tests.stand_ins import tiny_tokenizer
from tests.test_evaluator_configs import collection
from tests.test_janus_configs import answers
from tests.test_janus_configs import pairs as janus_pairs
from tests.test_knowledge_probe_configs import country
from tests.test_pegasus_configs import asked as asked_of_clips
from tests.test_pegasus_configs import siglip

pytestmark = pytest.mark.slow

KINDS = {"olmo": OlmoConfig, "llama": LlamaConfig, "mistral": MistralConfig}
HUB = {"OLMo": "olmo", "istral": "mistral", "zephyr": "mistral"}  # the others are Llamas
PRINCIPLES = ("helpfulness", "honesty", "instruction_following", "truthfulness")
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=2",
    "--trainer.max_steps=1",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    return tmp_path


def models() -> None:
    """A folder for each architecture, with room for 2048 tokens."""
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["num_key_value_heads"] = 1
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": None}
    torch.manual_seed(0)
    for kind, config in KINDS.items():
        small = config(vocab_size=len(tokenizer), max_position_embeddings=2048, **sizes, **ids)
        AutoModelForCausalLM.from_config(small).save_pretrained(kind)
        tokenizer.save_pretrained(kind)
    siglip(Path("siglip"))


def sources() -> dict[str, list[str]]:
    """The options that put small files of the same schema in place of a recipe's data, by what its name begins with."""
    said = [{"prompt": f"why {n}", "chosen": f"so {n}", "rejected": f"no {n}"} for n in range(64)]
    spoken = [
        {side: f"\n\nHuman: {r['prompt']}\n\nAssistant: {r[side]}" for side in ("chosen", "rejected")} for r in said
    ]
    asked = [{"question": f"{n} and 1?", "answer": f"It is {n + 1}\n#### {n + 1}"} for n in range(64)]
    proved = [{"problem": f"{n} and 1?", "solution": f"It is $\\boxed{{{n + 1}}}$"} for n in range(64)]
    found = [
        {
            "query_id": f"{n}",
            "query": f"q {n}",
            "positive_passages": [{"docid": f"p{n}", "title": "", "text": f"a {n}"}],
        }
        | {"negative_passages": [{"docid": f"n{n}-{k}", "title": "", "text": f"b {n} {k}"} for k in range(2)]}
        for n in range(64)
    ]
    files = country(Path(), facts=6)
    knowledge = [f"--data.train={files['text.txt']}", f"--data.knowledge={files['facts.jsonl']}", "--data.seq_len=256"]
    knowledge += [
        "--data.long_passage=truncate",
        "--trainer.callbacks.start_step=0",
        "--trainer.callbacks.n_injections=1",
    ]
    told_apart = {"so": 5, "no": 3}
    rated = [
        {
            "instruction": f"why {n}",
            "completions": [
                {
                    "response": f"{word} {n}",
                    "ratings": dict.fromkeys(PRINCIPLES, rating),
                    "rationales": dict.fromkeys(PRINCIPLES, f"it says {word}"),
                }
                for word, rating in told_apart.items()
            ],
        }
        for n in range(64)
    ]
    few, packed = "--data.batch_size=8", "--data.micro_batch_tokens=512"
    pairs = [f"--data.train={jsonl(Path('pairs.jsonl'), *said)}", few]
    told = jsonl(Path("told.jsonl"), *({"prompt": r["prompt"], "output": r["chosen"]} for r in said))
    judged = {kind: collection(kind) for kind in ("direct", "pairwise")}
    clips = [f"--data.train={asked_of_clips(Path.cwd())}", "--data.video_root=null"]
    clips += ["--model.vision.name_or_path=siglip"]
    judged["joint"] = json.dumps(list(judged.values()))
    cited = [{"id": f"{n}", "question": f"q {n}", "answers": [f"a {n}"], "gold_ids": [f"p{n % 8}"]} for n in range(64)]
    passages = [{"id": f"p{n}", "text": f"a {n}"} for n in range(8)]
    citing = [f"--data.train={jsonl(Path('cited.jsonl'), *cited)}"]
    citing += [f"--data.corpus={jsonl(Path('passages.jsonl'), *passages)}"]
    dialogues = f"--data.train={jsonl(Path('spoken.jsonl'), *spoken)}"
    words = ["--data.template.init_args.labels=[a, b]", "--data.template.init_args.opening=x"]  # of one token here
    drawn = ["--data.batch_size=4", "--model.num_samples=2", "--model.decoding.max_new_tokens=4"]
    return {
        "sft/": [f"--data.train={told}", packed],
        "reward_model/": [dialogues, few],
        "janus/sft": [f"--data.train={answers()}", packed],
        **{f"janus/{kind}": [f"--data.train={janus_pairs(kind)}", few] for kind in ("dpo", "orpo", "rm")},
        "janus/kto": [f"--data.train={janus_pairs('dpo')}", few],
        **{f"evaluator/prometheus_7b_{kind}": [f"--data.train={file}", few] for kind, file in judged.items()},
        **{f"self_explore/{kind}_7b/{stage}": pairs for kind in ("gsm8k", "math") for stage in ("dpo", "outcome_dpo")},
        "self_explore/gsm8k_7b": [f"--data.train={jsonl(Path('asked.jsonl'), *asked)}", few],
        "self_explore/math_7b": [f"--data.train={jsonl(Path('proved.jsonl'), *proved)}", few],
        "knowledge_probe/": [*knowledge, "--data.batch_size=4"],
        "instructir/": [f"--data.train={jsonl(Path('found.jsonl'), *found)}", few, "--data.num_negatives=2"],
        "co_supervision/": [*citing, few],
        "self_judge/jsft_hh": [dialogues, dialogues.replace("train", "imitate"), few, *words],
        "self_judge/jsft_uf": [f"--data.train={jsonl(Path('rated.jsonl'), *rated)}", few, *words],
        "self_judge/self_judge": [dialogues, *drawn, *words],
        "grpo/": [f"--data.train={jsonl(Path('asked.jsonl'), *asked)}", *drawn],
        "pegasus/molmo2_style": [*clips, "--data.micro_batch_tokens=1500"],
        "pegasus/": [*clips, few],
        "dpo/": pairs,
        "kto/": pairs,
    }


def root(recipe: Recipe) -> str:
    """Where its runs are."""
    path = Path(recipe.name)
    return recipe.values["trainer"].get("default_root_dir") or f"runs/{path.parts[1]}/{path.stem}"


def depth(recipe: Recipe, by_root: dict[str, Recipe]) -> int:
    """How many runs come before one of this recipe."""
    start = recipe.values["model"]["init_args"]["backbone"]["init_args"].get("path")
    return 0 if start is None else 1 + depth(by_root[str(Path(start).parent)], by_root)


def command(recipe: Recipe, composed: list[str], data: list[str]) -> list[str]:
    """What a user types, on small models and files."""
    arguments: Any = recipe.values["model"]["init_args"]
    backbone = arguments["backbone"]["init_args"]
    given = [part for file in composed for part in ("--config", str(ROOT / file))]
    model = []
    if name := backbone.get("name_or_path"):
        if "parts_7b/mistral.yaml" in " ".join(composed):
            name = "Mistral"
        model = [f"--model.backbone.name_or_path={next((HUB[part] for part in HUB if part in name), 'llama')}"]
        model += ["--model.backbone.revision=null"] if "revision" in backbone else []
        model += [model[0].replace("backbone", "embedder")] if "embedder" in arguments else []
    if "val" in recipe.values["data"]["init_args"]:
        data = [*data, data[0].replace(".train=", ".val=")]
    return ["fit", *given, *SMALL, *model, *data]


def test_every_recipe_takes_a_step_with_every_overlay_it_names(there: Path) -> None:
    models()
    found = recipes()
    data = sources()
    by_root = {root(recipe): recipe for recipe in found}
    jobs = []
    for recipe in sorted(found, key=lambda recipe: depth(recipe, by_root)):
        options = next(data[part] for part in data if recipe.name.startswith(f"configs/{part}"))
        jobs += [command(recipe, composed, options) for composed in recipe.compositions]
    on_two_ranks(jobs, timeout=1500, warm=False)
    for recipe in found:
        runs = [Path(root(recipe), f"version_{number}") for number in range(len(recipe.compositions))]
        assert all(json.loads((run / "metrics.json").read_text())["step"] == 1 for run in runs)
        assert all(find_checkpoint(run).is_dir() == ("fsdp" in str(recipe.overlays)) for run in runs)
