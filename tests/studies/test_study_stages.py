"""What a stage is: its command, and a key that changes with whatever can change its outcome, and only then."""

from importlib import metadata

import pytest

from studies.stages import lay_out
from text.errors import UserError


def keys(toy, **options):
    work = toy.work(**options)
    return {(arm, seed, name): key for (arm, seed), line in work.lines.items() for name, key in line.items()}


def changed(before, after):
    return {place for place in before if before[place] != after[place]}


def test_what_no_seed_and_no_arm_reaches_runs_once(toy):
    work = toy.work()
    names = [(stage.name, stage.seed, stage.arms) for stage in work.stages.values()]
    assert names[0] == ("base", None, ("fast", "slow"))
    assert len(names) == 1 + 3 * 2 * 2
    assert [seed for _, seed, _ in names[1:]] == [1] * 4 + [2] * 4 + [3] * 4


def test_what_needs_a_seeded_stage_is_seeded(toy):
    toy.study["stages"]["measure"]["set"].pop("model.tag")
    assert {stage.seed for stage in toy.work().stages.values() if stage.name == "measure"} == {1, 2, 3}


def test_the_command_has_every_placeholder_filled_in(toy):
    work = toy.work(seeds=[2])
    base, train, measure = (work.stages[key] for key in work.lines["fast", 2].values())
    home = f"runs/toy/stages/train-{train.key[:12]}"
    assert train.arguments() == [
        "fit",
        *("--config", "configs/toy/base.yaml", "--config", "configs/trainer/cpu.yaml"),
        "--seed_everything=2",
        f"--ckpt_path=runs/toy/stages/base-{base.key[:12]}/version_0/checkpoints/last.ckpt",
        "--model.rate=0.5",
        f"--trainer.default_root_dir={home}",
    ]
    assert train.settings["seed_everything"] == 2, "a placeholder that is the whole value keeps its type"
    assert measure.settings == {
        "model.run": f"{home}/version_0",
        "model.seen": f"{home}/version_0/metrics.json",
        "model.tag": "s2",
    }
    assert "--ckpt_path=last" in train.arguments(resume=True)


def test_values_reach_the_command_line_as_yaml_would_write_them(toy):
    toy.study["stages"]["base"]["set"] = {"a": None, "b": True, "c": [1, "x"], "d": {"k": 1.5}, "e": "1e-4"}
    base = next(iter(toy.work().stages.values()))
    assert base.arguments()[3:-1] == ["--a=null", "--b=true", '--c=[1, "x"]', '--d={"k": 1.5}', "--e=1e-4"]


def test_quick_settings_come_last(toy):
    toy.study["arms"]["fast"]["set"]["train"]["trainer.max_steps"] = 50
    work = toy.work(quick=True)
    assert work.seeds == [9]
    steps = [stage.settings["trainer.max_steps"] for stage in work.stages.values() if stage.name == "train"]
    assert steps == [1, 1]


def test_equal_projects_have_equal_keys(toy):
    before = keys(toy)
    (toy.root / "configs/toy/base.yaml").write_text(
        "# Why this is so\ntrainer: ../trainer/one.yaml\ndata:\n  train: data.txt\n"
    )
    (toy.root / "lm/forests/forest.py").write_text("WIDTH   = 3  # why else\n")
    (toy.root / "studies").mkdir()
    (toy.root / "studies/run.py").write_text("JOBS = 1\n")
    toy.study["claim"] = "Another sentence"
    assert keys(toy) == before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("configs/toy/base.yaml", "data: {train: data.txt, seq_len: 9}\ntrainer: ../trainer/one.yaml\n"),
        ("configs/trainer/one.yaml", "accelerator: cpu\ndevices: 1\nmax_steps: 3\n"),
        ("data.txt", "twice upon a time\n"),
        ("lm/forests/forest.py", "WIDTH = 4\n"),
        ("cli/trainer_cli.py", "from lm.forests.forest import WIDTH as main\n"),
    ],
    ids=["config", "included config", "input", "code", "door"],
)
def test_a_change_of_config_input_or_code_changes_every_key(toy, file, content):
    before = keys(toy)
    (toy.root / file).parent.mkdir(exist_ok=True)
    (toy.root / file).write_text(content)
    assert changed(before, keys(toy)) == set(before)


def install(monkeypatch, **versions):
    """Pretend that these versions are installed."""
    real = metadata.version
    monkeypatch.setattr("studies.packages.version", lambda name: versions.get(name.replace("-", "_")) or real(name))


@pytest.mark.parametrize("package", ["torch", "transformers", "numpy", "peft", "tokenizers", "lightning", "scipy"])
def test_another_version_of_a_package_that_decides_numbers_changes_every_key(toy, monkeypatch, package):
    before = keys(toy)
    install(monkeypatch, **{package: "99.1"})
    work = toy.work()
    assert changed(before, keys(toy)) == set(before)
    assert work.packages[package] == "99.1"


def test_builds_and_what_only_shows_numbers_do_not_count(toy, monkeypatch):
    before = keys(toy)
    install(monkeypatch, torch=f"{metadata.version('torch').partition('+')[0]}+cu999", rich="99", matplotlib="99")
    assert keys(toy) == before


def test_what_some_runs_use_counts_for_them_alone(toy, monkeypatch):
    (toy.root / "modules").mkdir()
    source = "import math\n\n\nclass Search:\n    def find(self):\n        import bm25s\n"
    (toy.root / "modules/search.py").write_text(source)
    toy.study["stages"]["train"]["set"]["model"] = "Search"
    toy.study["stages"]["measure"]["set"]["model.engine"] = "vllm"
    before = keys(toy)
    install(monkeypatch, bm25s="99")
    assert {name for _, _, name in changed(before, keys(toy))} == {"train", "measure"}
    before = keys(toy)
    install(monkeypatch, bm25s="99", vllm="99")
    assert {name for _, _, name in changed(before, keys(toy))} == {"measure"}


def test_a_change_of_the_class_that_a_stage_names_reaches_it_and_what_needs_it(toy):
    (toy.root / "modules").mkdir()
    (toy.root / "modules/__init__.py").write_text("from modules.probe import Probe\n")
    (toy.root / "modules/probe.py").write_text("class Probe: ...\n")
    toy.study["stages"]["train"]["set"]["model"] = "Probe"
    before = keys(toy)
    (toy.root / "modules/other.py").write_text("class Other: ...\n")
    (toy.root / "modules/__init__.py").write_text("from modules.other import Other\nfrom modules.probe import Probe\n")
    assert keys(toy) == before
    (toy.root / "modules/probe.py").write_text("class Probe:\n    rate = 1\n")
    assert {name for _, _, name in changed(before, keys(toy))} == {"train", "measure"}


def test_a_change_reaches_the_stages_after_it_and_no_other(toy):
    before = keys(toy)
    toy.study["arms"]["fast"]["set"]["train"]["model.rate"] = 0.6
    assert changed(before, keys(toy)) == {("fast", s, name) for s in (1, 2, 3) for name in ("train", "measure")}
    before = keys(toy)
    toy.study["stages"]["base"]["set"] = {"model.rate": 7}
    assert changed(before, keys(toy)) == set(before)


@pytest.mark.parametrize("named", ["books/", "books/*.txt", "b*/*.txt", "**/t??.txt", "~/books/*.txt"])
def test_folders_and_globs_are_inputs(toy, named, monkeypatch):
    monkeypatch.setenv("HOME", str(toy.root))
    (toy.root / "books").mkdir()
    (toy.root / "books/one.txt").write_text("one")
    toy.study["stages"]["measure"]["set"]["data.test"] = named
    before = keys(toy)
    (toy.root / "books/.hidden").write_text("three")
    assert keys(toy) == before
    (toy.root / "books/two.txt").write_text("two")
    assert {name for _, _, name in changed(before, keys(toy))} == {"measure"}


def test_globs_in_the_project_and_files_below_home_are_inputs(toy, monkeypatch):
    monkeypatch.setenv("HOME", str(toy.root / "home"))
    (toy.root / "home/.cache/features").mkdir(parents=True)
    toy.study["stages"]["base"]["set"] = {
        "data.train": ["*.jsonl", "~/own.txt"],
        "model.kept_features": "~/.cache/features",
        "model.parts": "*",
    }
    (toy.root / "one.jsonl").write_text("one")
    (toy.root / "home/own.txt").write_text("own")
    before = keys(toy)
    (toy.root / "home/.cache/features/clip").write_text("what a stage keeps while it runs")
    assert keys(toy) == before
    assert list(next(iter(toy.work().stages.values())).inputs) == ["*.jsonl", "data.txt", "~/own.txt"]
    for file in ("one.jsonl", "two.jsonl", "home/own.txt"):
        (toy.root / file).write_text("changed")
        after = keys(toy)
        assert changed(before, after) == set(before)
        before = after


def test_a_config_that_an_option_names_counts_with_all_that_it_includes(toy):
    (toy.root / "modules").mkdir()
    (toy.root / "modules/probe.py").write_text("class Probe: ...\n")
    (toy.root / "configs/model.yaml").write_text("class_path: Probe\ninit_args: size.yaml\n")
    (toy.root / "configs/size.yaml").write_text("width: 3\nwords: words.txt\n")
    (toy.root / "words.txt").write_text("words")
    toy.study["stages"]["base"]["set"] = {"model": "configs/model.yaml"}
    before = keys(toy)
    (toy.root / "configs/model.yaml").write_text("# why\ninit_args: size.yaml\nclass_path: Probe\n")
    assert keys(toy) == before
    for file, content in (
        ("configs/size.yaml", "width: 4\nwords: words.txt\n"),
        ("words.txt", "others"),
        ("modules/probe.py", "class Probe:\n    rate = 1\n"),
    ):
        (toy.root / file).write_text(content)
        after = keys(toy)
        assert changed(before, after) == set(before), file
        before = after


def test_the_order_of_options_counts(toy):
    """The command line takes them from left to right, and a later one may replace the whole that an earlier one set."""
    options = {"model.backbone.path": "here", "model.backbone": "Other"}
    toy.study["stages"]["base"]["set"] = options
    before = keys(toy)
    toy.study["stages"]["base"]["set"] = dict(reversed(options.items()))
    assert changed(before, keys(toy)) == set(before)


def test_the_name_of_a_folder_of_the_house_is_no_input(toy):
    toy.study["stages"]["base"]["set"] = {"model.kind": "lm"}
    assert list(next(iter(toy.work().stages.values())).inputs) == ["data.txt"]


@pytest.mark.parametrize(
    ("settings", "several"),
    [
        ({}, False),
        ({"trainer.devices": "auto"}, False),  # on a CPU that is one
        ({"trainer.devices": 2}, True),
        ({"trainer.devices": -1}, True),
        ({"trainer.devices": [0, 1]}, True),
        ({"trainer.accelerator": "gpu"}, False),
        ({"trainer.accelerator": "gpu", "trainer.devices": "auto"}, True),
        ({"trainer.num_nodes": 2}, True),
    ],
)
def test_who_may_use_several_devices(toy, settings, several):
    toy.study["stages"]["base"]["set"] = settings
    assert next(iter(toy.work().stages.values())).several_devices is several


def test_a_missing_config_is_named(toy):
    toy.study["stages"]["base"]["configs"] = "bass.yaml"
    with pytest.raises(UserError, match=r"bass\.yaml: no such config.*relative to the folder of study\.yaml"):
        toy.work()


def test_seeds_of_calibration_are_refused_and_have_a_mode_of_their_own(toy):
    with pytest.raises(UserError, match=r"\[0\] is for calibration.*--calibrate"):
        toy.work(seeds=[1, 0])
    work = toy.work(calibrate=True)
    assert (work.seeds, work.mode) == ([0], "calibration")
    assert lay_out(work.study, toy.root, work.study.seeds).mode == "reported"
    assert lay_out(work.study, toy.root, [1]).mode == "trial"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"jobs": 0}, "--jobs 0"),
        ({"quick": True, "seeds": [1]}, "give one of them"),
        ({"quick": True, "calibrate": True}, "give one of them"),
    ],
)
def test_contradictory_options_are_refused(toy, options, part):
    with pytest.raises(UserError, match=part):
        toy.work(**options)


def test_quick_needs_a_quick_part(toy):
    toy.study.pop("quick")
    with pytest.raises(UserError, match="no 'quick' part"):
        toy.work(quick=True)
