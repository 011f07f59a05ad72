"""Folders become a folder: the same numbers for any shards, what is copied, what is refused; adapters; a sweep."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import merge as merge_door
from lm.backbones.adapters import weights_sha256
from lm.files.weight_files import INDEX, WeightFiles, write_weights
from lm.merging.adapter_sums import merge_adapters
from lm.merging.folders import merge, sweep
from lm.merging.rules import Recipe
from tests.stand_ins import published, tiny_tokenizer, token_rows
from text.errors import UserError


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Base and two experts near it, in float32."""
    root = tmp_path_factory.mktemp("models")
    base = AutoModelForCausalLM.from_pretrained(published(root / "base"))
    for seed, name in enumerate(("direct", "pairwise"), start=1):
        published(root / name)
        torch.manual_seed(seed)
        moved = {k: v + 0.02 * torch.randn_like(v) for k, v in base.state_dict().items()}
        expert = AutoModelForCausalLM.from_pretrained(root / name)
        expert.load_state_dict(moved)
        expert.save_pretrained(root / name)
    return root


def weights(folder):
    files = WeightFiles(folder)
    return {name: files.read(name).clone() for name in files.tensors}


def two(models):
    return [models / "direct", models / "pairwise"]


@pytest.mark.parametrize(
    "method", ["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "dare_sequential"]
)
def test_a_merged_folder_is_opened_by_transformers(models, tmp_path, method):
    needs = {} if method in ("linear", "slerp") else {"base": models / "base"}
    out = merge(two(models), tmp_path / "out", method=method, **needs)
    opened = AutoModelForCausalLM.from_pretrained(out)
    direct, pairwise, base = (weights(models / name) for name in ("direct", "pairwise", "base"))
    expected = {name: Recipe(method).apply(name, [direct[name], pairwise[name]], base[name]) for name in direct}
    torch.testing.assert_close({k: opened.state_dict()[k] for k in expected}, expected, atol=0, rtol=0)
    assert opened(token_rows(1)).logits.isfinite().all()
    # the library reads the same from what our stream wrote
    torch.testing.assert_close(load_file(out / "model.safetensors"), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("method", "theirs", "common"),
    [
        ("linear", {}, {}),
        ("task_arithmetic", {}, {}),
        ("ties", {"density": 0.3}, {"normalize": True}),
        ("slerp", {}, {"t": 0.3}),
    ],
)
def test_mergekit_agrees(models, tmp_path, method, theirs, common):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    base = {"base_model": str(models / ("direct" if method == "slerp" else "base"))} if method != "linear" else {}
    each = {} if method == "slerp" else theirs | {"weight": 1.0}
    recipe = {
        "merge_method": method,
        "models": [{"model": str(folder), "parameters": each} for folder in two(models)],
        "parameters": common,
        "dtype": "float32",
    }
    run_merge(MergeConfiguration.model_validate(recipe | base), str(tmp_path / "theirs"), MergeOptions())
    ours = theirs | ({"alpha": 0.7} if method == "slerp" else {})
    needs = {"base": models / "base"} if method not in ("linear", "slerp") else {}
    out = merge(two(models), tmp_path / "ours", method, **needs, **ours)
    torch.testing.assert_close(weights(out), load_file(tmp_path / "theirs" / "model.safetensors"), atol=1e-6, rtol=0)


def test_what_comes_along(models, tmp_path):
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (models / "direct" / "chat_template.jinja").write_text(template)
    (models / "direct" / "model.py").write_text("raise SystemExit")
    (models / "direct" / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": true}')
    out = merge(two(models), tmp_path / "out", "dare_linear", base=models / "base", alpha=0.25, drop_rate=0.5, seed=3)
    assert AutoTokenizer.from_pretrained(out).chat_template == template
    assert AutoTokenizer.from_pretrained(out).get_vocab() == tiny_tokenizer().get_vocab()
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.5
    assert not (out / "model.py").exists()  # nothing that runs
    recipe = json.loads((out / "merge.json").read_text())
    assert [recipe[key] for key in ("method", "alpha", "drop_rate", "seed")] == ["dare_linear", 0.25, 0.5, 3]
    assert [one["model"] for one in recipe["models"]] == [str(folder) for folder in two(models)]
    assert recipe["base"]["model"] == str(models / "base")
    assert len({one["sha256"] for one in (*recipe["models"], recipe["base"])}) == 3
    card = (out / "README.md").read_text()
    assert "| drop_rate | 0.5 |" in card
    assert "tags: [merge]" in card
    for name in ("chat_template.jinja", "model.py", "generation_config.json"):
        (models / "direct" / name).unlink()


@pytest.mark.parametrize("method", ["linear", "dare_ties"])
def test_shards_change_nothing(models, tmp_path, method):
    needs = {"base": models / "base"} if method == "dare_ties" else {}
    sharded = tmp_path / "direct"
    AutoModelForCausalLM.from_pretrained(models / "direct").save_pretrained(sharded, max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(sharded)
    assert (sharded / INDEX).is_file()
    one = merge(two(models), tmp_path / "one", method, **needs)
    other = merge([sharded, models / "pairwise"], tmp_path / "other", method, **needs)
    assert weights_sha256(weights(one)) == weights_sha256(weights(other))
    sums = [json.loads((out / "merge.json").read_text())["models"][0]["sha256"] for out in (one, other)]
    assert sums[0] == sums[1]


def test_what_is_written_in_shards_is_opened(models, tmp_path):
    files = WeightFiles(models / "direct")
    (tmp_path / "out").mkdir()
    write_weights(tmp_path / "out", files.tensors, files.read, max_shard_size="40KB")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    AutoModelForCausalLM.from_pretrained(models / "direct").config.save_pretrained(tmp_path / "out")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    expected = AutoModelForCausalLM.from_pretrained(models / "direct").state_dict()
    torch.testing.assert_close(dict(opened), dict(expected), atol=0, rtol=0)


def test_every_type_survives_the_stream(tmp_path):
    kinds = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    ]
    tensors = {f"t{i}": torch.arange(2 * i + 1).to(kind) for i, kind in enumerate(kinds)} | {"one": torch.tensor(2.5)}
    write_weights(tmp_path, {name: t.to("meta") for name, t in tensors.items()}, tensors.__getitem__)
    torch.testing.assert_close(load_file(tmp_path / "model.safetensors"), tensors, atol=0, rtol=0)
    torch.testing.assert_close(weights(tmp_path), tensors, atol=0, rtol=0)


def test_types_and_tied_weights(tmp_path):
    folders = [published(tmp_path / name, seed, "bfloat16", tie_word_embeddings=True) for seed, name in enumerate("ab")]
    out = merge(folders, tmp_path / "out", alpha=1.0)
    opened = AutoModelForCausalLM.from_pretrained(out)
    assert opened.dtype == torch.bfloat16
    assert opened.lm_head.weight is opened.model.embed_tokens.weight
    assert weights_sha256(weights(out)) == weights_sha256(weights(folders[0]))  # bit by bit


# --- refused ----------------------------------------------------------------------------------------------------------


def test_the_same_model_twice(models, tmp_path):
    with pytest.raises(UserError, match="given twice"):
        merge([models / "direct", models / "base" / ".." / "direct"], tmp_path / "out")
    same = published(tmp_path / "same")  # of the seed of the base
    with pytest.raises(UserError, match="have the same weights"):
        merge([same, models / "base"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["same"]  # nothing half done is left


def test_models_that_do_not_belong_together(models, tmp_path):
    wider = published(tmp_path / "wider", intermediate_size=96)
    with pytest.raises(UserError, match="differ in 'intermediate_size': 64 and 96"):
        merge([models / "direct", wider], tmp_path / "out")
    more = published(tmp_path / "more", vocab_size=310)
    with pytest.raises(UserError, match="differ in 'vocab_size'"):
        merge([models / "direct", more], tmp_path / "out")
    with pytest.raises(UserError, match="has shapes"):
        merge(two(models), tmp_path / "out", "ties", base=more)
    untied = published(tmp_path / "tied", tie_word_embeddings=True)
    with pytest.raises(UserError, match=r"'lm_head\.weight' is in one of them alone"):
        merge(two(models), tmp_path / "out", "ties", base=untied)


def test_other_tokenizers(models, tmp_path):
    other = published(tmp_path / "other", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_special_tokens({"pad_token": "the"})
    tokenizer.save_pretrained(other)
    with pytest.raises(UserError, match="different tokenizers"):
        merge([models / "direct", other], tmp_path / "out")


def test_folders_that_are_none(models, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        merge([models / "direct", tmp_path / "absent"], tmp_path / "out")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"is a run.*export\.py"):
        merge([models / "direct", tmp_path / "run"], tmp_path / "out")
    broken = published(tmp_path / "broken", seed=4)
    (broken / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        merge([models / "direct", broken], tmp_path / "out")
    (broken / INDEX).write_text("{}")
    with pytest.raises(UserError, match=r"index\.json is not an index"):
        merge([models / "direct", broken], tmp_path / "out")
    (broken / INDEX).unlink()
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        merge([models / "direct", broken], tmp_path / "out")


def test_arguments(models, tmp_path):
    with pytest.raises(UserError, match="ties needs 'base'"):
        merge(two(models), tmp_path / "out", "ties")
    with pytest.raises(UserError, match="linear has no use for a base"):
        merge(two(models), tmp_path / "out", base=models / "base")
    with pytest.raises(UserError, match="two or more"):
        merge([models / "direct"], tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("")
    with pytest.raises(UserError, match="not empty"):
        merge(two(models), tmp_path / "full")
    merge(two(models), tmp_path / "full", overwrite=True)
    assert not (tmp_path / "full" / "kept.txt").exists()


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    for seed in range(2):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(models / "base"), config).save_pretrained(root / str(seed))
    return [root / "0", root / "1"]


def unloaded(base, adapter):
    return (
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload().state_dict()
    )


def test_adapters_are_merged_exactly(models, adapters, tmp_path):
    halves = [unloaded(models / "base", adapter) for adapter in adapters]
    expected = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    found = unloaded(models / "base", merge(adapters, tmp_path / "out"))
    torch.testing.assert_close(dict(found), expected, atol=1e-5, rtol=0)
    # factors averaged by themselves are another model
    linear = merge_adapters(adapters, tmp_path / "linear", [0.5, 0.5], combination_type="linear")
    far = unloaded(models / "base", linear)
    assert max((far[name] - expected[name]).abs().max() for name in expected) > 1e-3


def test_adapters_refused(models, adapters, tmp_path):
    with pytest.raises(UserError, match="merged linearly"):
        merge(adapters, tmp_path / "out", "ties", base=models / "base")
    with pytest.raises(UserError, match="models of one kind"):
        merge([adapters[0], models / "direct"], tmp_path / "out")
    moved = tmp_path / "moved"
    shutil.copytree(adapters[1], moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "another"}))
    with pytest.raises(UserError, match=r"different bases .*another.*give 'base'"):
        merge([adapters[0], moved], tmp_path / "out")
    merge([adapters[0], moved], tmp_path / "out", base=models / "base")


def an_adapter(base, folder, seed, targets=("q_proj", "down_proj"), **options):
    """An adapter whose every trained value differs from where it began."""
    torch.manual_seed(seed)
    given = {"r": 2 + seed, "lora_alpha": 5, "init_lora_weights": False, "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=[*targets], **given))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        [{"use_rslora": True}, {"use_rslora": True}],
        [{"use_rslora": True}, {}],
        [{}, {"use_rslora": True}],
        [{"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"down_proj": 3}}, {"use_rslora": True}],
        [{"targets": ("v_proj",)}, {"targets": ("q_proj", "embed_tokens")}],
        [{"layers_to_transform": [1]}, {"layers_to_transform": [1]}],
        [{"ensure_weight_tying": True}, {}],
    ],
    ids=str,
)
def test_adapters_of_every_scale_are_merged_exactly(models, tmp_path, options):
    folders = [an_adapter(models / "base", tmp_path / str(i), i, **given) for i, given in enumerate(options)]
    one, two = (unloaded(models / "base", adapter) for adapter in folders)
    found = unloaded(models / "base", merge(folders, tmp_path / "out", weights=[3, 1]))
    moved = weights(models / "base")
    for name, tensor in found.items():
        update = 0.75 * (one[name] - moved[name]) + 0.25 * (two[name] - moved[name])
        torch.testing.assert_close(tensor - moved[name], update, atol=1e-6, rtol=1e-5)
    assert max(float((found[name] - moved[name]).abs().max()) for name in found) > 0.01


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora: true"),
        ({"lora_bias": True}, "lora_bias: true"),
        ({"bias": "all"}, 'bias: "all"'),
        ({"bias": "lora_only"}, 'bias: "lora_only"'),
        ({"modules_to_save": ["lm_head"]}, 'modules_to_save: ["lm_head"]'),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["first", "second", "both"])
def test_adapters_that_do_not_add_up_are_refused_by_the_name_of_the_option(models, tmp_path, options, named, place):
    given = [options if place in (here, "both") else {} for here in ("first", "second")]
    folders = [str(an_adapter(models / "base", tmp_path / str(i), i, **each)) for i, each in enumerate(given)]
    with pytest.raises(SystemExit) as stop:
        merge_door.main([*folders, "--out", str(tmp_path / "out")])
    assert f"adapter '{folders[place == 'second']}' has {named}" in str(stop.value)
    assert "hub id" not in str(stop.value)
    assert not (tmp_path / "out").exists()


def test_adapters_of_different_layers_are_refused(models, tmp_path):
    folders = [an_adapter(models / "base", tmp_path / str(i), i, layers_to_transform=[i]) for i in range(2)]
    with pytest.raises(UserError, match=r"has layers_to_transform: \[1\], and its update cannot be added"):
        merge(folders, tmp_path / "out")


# --- what lies in folders of others ---------------------------------------------------------------------------------


def test_links_out_of_a_folder_are_not_followed_and_those_within_are(models, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    folders = [tmp_path / name for name in ("direct", "pairwise")]
    for folder in folders:
        shutil.copytree(models / folder.name, folder)
    (folders[0] / "notes.txt").symlink_to(secret)
    with pytest.raises(UserError, match=r"notes.txt' leads to '.*secret.txt', which is not in that folder"):
        merge(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folders[0] / "notes.txt").unlink()
    (folders[0] / "kept.txt").write_text("fine")
    (folders[0] / "notes.txt").symlink_to("kept.txt")
    merge(folders, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "fine"
    (folders[0] / "additional_chat_templates").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is not in that folder"):
        merge(folders, tmp_path / "again")
    (folders[1] / "model.safetensors").unlink()
    (folders[1] / "model.safetensors").symlink_to(models / "pairwise" / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors' leads to"):
        merge(folders, tmp_path / "again")


def test_the_links_of_the_hubs_cache_are_inside(models, tmp_path):
    cached = []
    for name in two(models):
        snapshot = tmp_path / f"models--{name.name}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        shutil.copytree(name, blobs := snapshot.parents[1] / "blobs")
        for file in blobs.iterdir():
            (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
        cached.append(snapshot)
    merge(cached, tmp_path / "out")
    merge(two(models), tmp_path / "plain")
    torch.testing.assert_close(weights(tmp_path / "out"), weights(tmp_path / "plain"), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["../pairwise/model.safetensors", "/etc/hostname", "sub/model.safetensors"])
def test_an_index_that_names_files_elsewhere_is_refused(models, tmp_path, name):
    shutil.copytree(models / "direct", mine := tmp_path / "direct")
    shutil.copytree(models / "pairwise", tmp_path / "pairwise")
    index = {"weight_map": dict.fromkeys(WeightFiles(mine).tensors, name)}
    (mine / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="which is not in that folder"):
        merge([mine, models / "pairwise"], tmp_path / "out")


# --- tied weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twice", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("options", [{}, {"method": "dare_linear", "drop_rate": 0.5}], ids=str)
def test_a_tied_model_may_hold_its_output_layer_a_second_time(tmp_path, twice, options):
    folders = [published(tmp_path / str(seed), seed, tie_word_embeddings=True) for seed in range(3)]
    expected = merge(folders[:2], tmp_path / "once", base=folders[2] if options else None, **options)
    for number in twice:
        held = load_file(folders[number] / "model.safetensors")
        held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
        save_file(held, folders[number] / "model.safetensors", {"format": "pt"})
    found = merge(folders[:2], tmp_path / "twice", base=folders[2] if options else None, **options)
    torch.testing.assert_close(weights(found), weights(expected), atol=0, rtol=0)
    assert "lm_head.weight" not in load_file(found / "model.safetensors")


def test_an_output_layer_that_is_another_counts_as_a_weight_of_its_own(tmp_path):
    folders = [published(tmp_path / str(seed), seed, tie_word_embeddings=True) for seed in range(2)]
    held = load_file(folders[1] / "model.safetensors")
    held["lm_head.weight"] = held["model.embed_tokens.weight"] + 1
    save_file(held, folders[1] / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"'lm_head\.weight' is in one of them alone"):
        merge(folders, tmp_path / "out")


# --- in memory --------------------------------------------------------------------------------------------------------


def test_a_sweep_equals_the_folders_and_gives_the_weights_back(models, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(models / "base")
    experts = [weights(folder) for folder in two(models)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for alpha in sweep(model, experts, [0, 0.3, 1], Recipe("dare_linear"), before):
        out = merge(two(models), tmp_path / str(alpha), "dare_linear", base=models / "base", alpha=alpha)
        torch.testing.assert_close(dict(model.state_dict()), weights(out), atol=0, rtol=0)
    torch.testing.assert_close(dict(model.state_dict()), before, atol=0, rtol=0)
    for alpha in sweep(model, experts, [0.3]):
        assert alpha == 0.3
        break  # also when nobody goes on
    torch.testing.assert_close(dict(model.state_dict()), before, atol=0, rtol=0)


# --- memory -----------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
from pathlib import Path
from lm.merging.folders import _require_alike, merge
from lm.files.weight_files import WeightFiles

def memory(line):  # not that of getrusage, which a process inherits from the one that started it
    return next(int(row.split()[1]) * 1024 for row in open("/proc/self/status") if row.startswith(line))

_require_alike([WeightFiles(Path(folder)) for folder in sys.argv[1:3]], 2)  # all that is imported, and no weights
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
merge(sys.argv[1:3], sys.argv[3], sys.argv[4], *sys.argv[5:])
print(memory("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def larger_models(tmp_path_factory):
    root = tmp_path_factory.mktemp("larger")
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    return [str(published(root / name, seed, **sizes)) for seed, name in enumerate(("a", "b", "base"))]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "dare_linear"])
def test_memory_is_below_one_model(larger_models, tmp_path, method):
    size = Path(larger_models[0], "model.safetensors").stat().st_size
    assert size > 100e6
    base = [] if method in ("linear", "slerp") else [larger_models[2]]
    arguments = [*larger_models[:2], str(tmp_path / "out"), method, *base]
    done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True)
    print(f"{method}: {int(done.stdout) / size:.3f} of one model")
    assert 0 < int(done.stdout) <= 1.2 * size
