"""Nothing runs from data: notes of checkpoints, shards, folders with code of their own, whichever door opens them."""

from __future__ import annotations

import ast
import builtins
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

import export
from callbacks.checkpoints import AtomicCheckpointIO
from cli.exporting import export_checkpoint
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from lm.backbones.encoder import PretrainedEncoder
from lm.backbones.rebuilt import Grant, rebuild_backbone
from lm.backbones.reward_backbone import PretrainedReward
from lm.backbones.run_backbone import TrainedBackbone
from lm.files.shards import require_plain_shards
from lm.merging.folders import merge
from lm.merging.merged_backbone import MergedBackbone
from lm.steps.strategies import FullySharded
from lm.tokens.tokenizer import PretrainedTokenizer, own_tokenizer
from tests.lm.backbones.test_run_backbone import a_run, logits
from tests.stand_ins import noted, published, scratch, tiny_tokenizer
from text.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A file that is there once foreign code has run; nobody may be asked whether it may."""
    mark = tmp_path / "ran"
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("the user was asked to trust code"))
    yield mark
    assert not mark.exists()


class Attack:
    """Runs when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def with_code(folder: Path, mark: Path) -> str:
    """A published folder that brings code of its own for configuration, model and tokenizer."""
    published(folder)
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoModel": "own.Own"}
    own["AutoModelForSequenceClassification"] = "own.Own"
    for name, more in (
        ("config.json", {"model_type": "of_its_own", "auto_map": own}),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}),
    ):
        described = json.loads((folder / name).read_text()) | more
        (folder / name).write_text(json.dumps(described))
    return str(folder)


def noting(run: Path, **init_args) -> Path:
    """The checkpoint of a run, with other notes of its backbone."""
    file = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["language_model"]["backbone"] = {
        "class_path": "lm.backbones.backbone.PretrainedBackbone",
        "init_args": PretrainedBackbone("x/y").plain()["init_args"] | init_args,
    }
    torch.save(checkpoint, file)
    return run


def forget(run: Path, *keys: str) -> None:
    """Have the checkpoint of a run know less of its base."""
    file = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    for key in keys:
        del checkpoint["language_model"]["fingerprint"][key]
    torch.save(checkpoint, file)


def test_code_beside_weights_is_not_run_because_a_checkpoint_says_so(tmp_path, trap):
    a_run(run := tmp_path / "version_0", scratch())
    noting(run, name_or_path=with_code(tmp_path / "code", trap), trust_remote_code=True)
    with pytest.raises(SystemExit, match=r"asks to run Python code that comes with .*--trust_remote_code"):
        export.main([str(run), str(tmp_path / "out")])
    for backbone in (TrainedBackbone(str(run)), TrainedBackbone(str(run), adapter="continue")):
        with pytest.raises(UserError, match="asks to run Python code"):
            backbone.build(tiny_tokenizer())
    shutil.rmtree(run / "tokenizer")
    with pytest.raises(UserError, match="asks to run Python code"):
        _ = TrainedBackbone(str(run)).tokenizer_name
    assert not (tmp_path / "out").exists()


def test_today_s_user_may_trust_what_the_run_trusted(tmp_path):
    base = str(published(tmp_path / "base"))
    module = a_run(run := tmp_path / "version_0", PretrainedBackbone(base, trust_remote_code=True, lora=LoRA(r=2)))
    export.main([str(run), str(tmp_path / "out"), "--trust_remote_code"])
    assert (tmp_path / "out" / "config.json").is_file()
    base_again = TrainedBackbone(str(run), adapter="continue", trust_remote_code=True).run_base()
    assert base_again.trust_remote_code
    assert module.backbone.trust_remote_code


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({"class_path": "os.system", "init_args": {"command": "true"}}, "backbone os.system is not known"),
        ({"class_path": "tests.stand_ins.Answers", "init_args": {}}, "is not known"),
        ({"class_path": "lm.backbones.backbone.PretrainedBackbone", "init_args": "x"}, "is not known"),
        ({"init_args": {}}, "is not known"),
        (
            {"class_path": "lm.backbones.backbone.ScratchBackbone", "init_args": {"code": "x"}},
            "cannot be rebuilt .* 'code'",
        ),
        (
            {"class_path": "lm.backbones.backbone.PretrainedBackbone", "init_args": {"name_or_path": 3}},
            "'name_or_path' is 3",
        ),
        (
            {
                "class_path": "lm.backbones.backbone.PretrainedBackbone",
                "init_args": {"name_or_path": "x/y", "lora": {"hook": 1}},
            },
            "cannot be rebuilt .* 'hook'",
        ),
    ],
)
def test_notes_may_choose_among_known_backbones_with_their_own_arguments(plain, said):
    with pytest.raises(UserError, match=said):
        rebuild_backbone({"backbone": plain, "fingerprint": {}})


# --- paths in notes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def private(tmp_path):
    """A published model, and one of the user's own that was made of it: with the same configuration and embeddings."""
    public, own = published(tmp_path / "public"), published(tmp_path / "own")
    weights = load_file(own / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] += 0.5
    save_file(weights, own / "model.safetensors", {"format": "pt"})
    return public, own


def doors_to_a_run(run: Path, out: Path, base: Path | None = None):
    """Everything that rebuilds the model of a run."""
    named = {} if base is None else {"base": str(base)}
    yield lambda: export_checkpoint(str(run), str(out), overwrite=True, base=[*named.values()])
    for adapter in ("merge", "continue"):
        yield lambda adapter=adapter: TrainedBackbone(str(run), adapter=adapter, **named).build(tiny_tokenizer())
    yield lambda: TrainedBackbone(str(run), **named).run_base()


@pytest.mark.parametrize("known", ["nothing", "the published model"])
def test_a_checkpoint_does_not_have_a_model_of_the_user_s_mixed_into_what_comes_of_it(tmp_path, private, known):
    public, own = private
    a_run(run := tmp_path / "version_0", PretrainedBackbone(str(public), lora=LoRA(r=2)))
    noting(run, name_or_path=str(own), lora=LoRA(r=2).__dict__)
    if known == "nothing":
        forget(run, "files_sha256")
    for opens in doors_to_a_run(run, tmp_path / "out"):
        with pytest.raises(UserError, match=rf"began with '{own}', but not with the files .* say so yourself: --base"):
            opens()
    assert not (tmp_path / "out").exists()
    for opens in doors_to_a_run(run, tmp_path / "out", own):  # the user knows better
        opens()


def test_a_run_of_the_user_s_is_no_base_of_a_stranger_s(tmp_path):
    a_run(own := tmp_path / "own" / "version_0", scratch())
    a_run(run := tmp_path / "version_0", TrainedBackbone(str(own), lora=LoRA(r=2)))
    assert export_checkpoint(str(run), str(tmp_path / "mine")).endswith(f"\nbase: {own}")  # it was trained on it here
    forget(run, "files_sha256", "tensor_sha256")
    for opens in doors_to_a_run(run, tmp_path / "out"):
        with pytest.raises(UserError, match="but not with the files that are there today"):
            opens()
    with pytest.raises(UserError, match="another base model"):  # nor is it, unknown, by the user's leave
        export_checkpoint(str(run), str(tmp_path / "out"), base=[str(own)])


def test_a_folder_in_the_way_is_not_the_published_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = noted(PretrainedBackbone("owner/name"))
    assert rebuild_backbone(saved) == PretrainedBackbone("owner/name")
    assert rebuild_backbone(noted(PretrainedBackbone("builtin:untrained"))).name_or_path == "builtin:untrained"
    published(tmp_path / "owner" / "name")
    with pytest.raises(UserError, match="began with 'owner/name', but not with the files"):
        rebuild_backbone(saved)


def test_what_lies_elsewhere_today_is_named_along_the_chain(tmp_path):
    base, first, second = (
        published(tmp_path / "base"),
        tmp_path / "first" / "version_0",
        tmp_path / "second" / "version_0",
    )
    a_run(first, PretrainedBackbone(str(base), lora=LoRA(r=2)))
    module = a_run(second, TrainedBackbone(str(first), lora=LoRA(r=2)))
    moved = [str(shutil.move(path, tmp_path / f"moved {n}")) for n, path in enumerate((first, base))]
    for known, gone in ((0, first), (1, base)):
        with pytest.raises(UserError, match=f"began with '{gone}', which does not exist; say where it is: --base"):
            export_checkpoint(str(second), str(tmp_path / "out"), base=moved[:known])
    export.main([str(second), str(tmp_path / "out"), "--base", moved[0], "--base", moved[1]])
    again = TrainedBackbone(str(second), base=moved).build(tiny_tokenizer())
    torch.testing.assert_close(logits(again), logits(module.model), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="'too' is one too many: the checkpoint began with 1 of them"):
        TrainedBackbone(str(second), base=[*moved, "too"]).build(tiny_tokenizer())


def test_both_models_of_a_merge_are_known_or_named(tmp_path):
    folders = [str(published(tmp_path / str(seed), seed)) for seed in (0, 1)]
    merged = MergedBackbone(*folders)
    assert rebuild_backbone(noted(merged)) == merged
    published(tmp_path / "1", 2)
    with pytest.raises(UserError, match="but not with the files that are there today"):
        rebuild_backbone(noted(merged) | {"fingerprint": {"files_sha256": "of before"}})
    swapped = rebuild_backbone(noted(merged), Grant(bases=(folders[1], folders[0])))
    assert (swapped.first, swapped.second) == (folders[1], folders[0])


@pytest.mark.parametrize("link", ["tokenizer/chat_template.jinja", "tokenizer", "checkpoints/last.ckpt"])
def test_links_lead_nowhere_out_of_a_run(tmp_path, link):
    a_run(run := tmp_path / "version_0", scratch())
    shutil.move(run / link, tmp_path / "elsewhere")
    (run / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"leads to '.*elsewhere', out of its run"):
        export_checkpoint(str(run), str(tmp_path / "out"))


def test_an_index_leads_nowhere_out_of_its_folder(tmp_path):
    folder, own = published(tmp_path / "folder"), published(tmp_path / "own", 1)
    (folder / "model.safetensors").unlink()
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(load_file(own / "model.safetensors"), "../own/model.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names '\.\./own/model.safetensors', which is not in that folder"):
        PretrainedBackbone(str(folder)).build(tiny_tokenizer())


@pytest.mark.parametrize(
    ("part", "value"),
    [("language_model", []), ("language_model", {}), ("state_dict", 3), ("global_step", "x")],
)
def test_notes_of_another_kind_are_no_checkpoint(tmp_path, part, value):
    a_run(run := tmp_path / "version_0", scratch())
    checkpoint = torch.load(file := run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(checkpoint | {part: value}, file)
    with pytest.raises(UserError, match="is not a checkpoint of a language model trained here"):
        open_checkpoint(file)


# --- code in folders --------------------------------------------------------------------------------------------------


def test_no_door_runs_or_asks_about_code_in_a_folder(tmp_path, trap):
    folder, plain = with_code(tmp_path / "code", trap), published(tmp_path / "plain")
    doors = {
        "model": lambda: PretrainedBackbone(folder).build(tiny_tokenizer()),
        "skeleton": lambda: PretrainedBackbone(folder).skeleton(tiny_tokenizer()),
        "encoder": lambda: PretrainedEncoder(folder).build(tiny_tokenizer()),
        "reward": lambda: PretrainedReward(folder).build(tiny_tokenizer()),
        "tokenizer": lambda: PretrainedTokenizer(folder).build(),
        "its own tokenizer": lambda: own_tokenizer(PretrainedBackbone(folder)).build(),
        "merge": lambda: merge([folder, plain], tmp_path / "out"),
        "merge, second": lambda: merge([plain, folder], tmp_path / "out"),
        "base of a merge": lambda: merge(
            [plain, published(tmp_path / "other", 1)], tmp_path / "out", "task_arithmetic", base=folder
        ),
    }
    for opens in doors.values():
        with pytest.raises(UserError):
            opens()
    assert own_tokenizer(PretrainedBackbone(folder, trust_remote_code=True)).trust_remote_code


def test_every_call_that_could_run_code_says_that_it_does_not():
    """Left out, transformers asks the terminal; what cannot bring code is named here."""
    without_code = {"PeftConfig", "LoraConfig"}
    silent = []
    files = [
        *ROOT.glob("*.py"),
        *(f for room in ("lm", "modules", "datamodules", "callbacks") for f in (ROOT / room).rglob("*.py")),
    ]
    calls = 0
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in ("from_pretrained", "from_config"):
                continue
            calls += 1
            told = any(keyword.arg in ("trust_remote_code", None) for keyword in node.keywords)
            if not told and ast.unparse(node.func.value) not in without_code:
                silent.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert calls > 8
    assert not silent


# --- shards -----------------------------------------------------------------------------------------------------------


def shards(folder: Path, **more) -> Path:
    """A sharded checkpoint of one rank."""
    state = {"state_dict": {"model.w": torch.ones(3, 4), "model.b": torch.ones(2, dtype=torch.bfloat16)}}
    state["optimizer_0"] = {"state": {}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.95), "params": [], **more}]}
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    about = {"method": "SFT", "tokenizer_sha256": "", "tokens": 1} | noted(
        scratch(), name="llama", config_sha256="", n_parameters=1
    )
    torch.save({"language_model": about, "global_step": 1}, folder / "meta.pt")
    return folder


def test_honest_shards_are_read(tmp_path):
    require_plain_shards(shards(tmp_path / "a.ckpt"))
    opened = open_checkpoint(find_checkpoint(tmp_path / "a.ckpt"))
    assert opened["state_dict"]["model.w"].tolist() == torch.ones(3, 4).tolist()
    assert opened["optimizer_states"][0]["param_groups"][0]["betas"] == (0.9, 0.95)


def doors_to(folder):
    """Everything that reads a folder of shards."""
    yield lambda: open_checkpoint(folder)
    yield lambda: FullySharded().load_checkpoint(folder)
    yield lambda: AtomicCheckpointIO().load_checkpoint(folder)


@pytest.mark.parametrize("where", ["metadata", "metadata of a rank", "entry"])
def test_shards_that_would_run_code_are_refused_at_every_door(tmp_path, trap, where):
    folder = shards(tmp_path / "a.ckpt", **({"hook": Attack(trap)} if where == "entry" else {}))
    if where != "entry":
        name = ".metadata" if where == "metadata" else "__0.metadata"
        (folder / name).write_bytes(pickle.dumps(Attack(trap)))
    for opens in doors_to(folder):
        with pytest.raises(UserError, match=r"metadata' is not read, for it could run code"):
            opens()


@pytest.mark.parametrize("path", ["../b.distcp", "/etc/hostname"])
def test_shards_that_lie_elsewhere_are_refused(tmp_path, path):
    folder = shards(tmp_path / "a.ckpt")
    shutil.copy(next(folder.glob("*.distcp")), tmp_path / "b.distcp")
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for stored in metadata.storage_data.values():
        stored.relative_path = path
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    for opens in doors_to(folder):
        with pytest.raises(UserError, match="outside the folder"):
            opens()


def test_what_pickle_can_name_by_torch_is_types_of_numbers_alone(tmp_path):
    for thing in (torch.load, torch.hub.load, torch.Tensor):
        (tmp_path / ".metadata").write_bytes(pickle.dumps(thing))
        with pytest.raises(UserError, match="no part of a checkpoint"):
            require_plain_shards(tmp_path)
