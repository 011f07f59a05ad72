"""The bi-encoder's step against formulas written out, its verbs on a small benchmark, and what leaves it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from transformers import AutoModel, LlamaConfig, Qwen2Config

import export
from datamodules import BEIR, InstructIR
from lm.backbones.adapters import LoRA
from lm.backbones.encoder import EncoderTokenizer, PretrainedEncoder, ScratchEncoder, WordTokenizer
from lm.tokens.text_table import tokenise
from modules import BiEncoder
from tests.retrieval_folders import (
    SHARED,
    TOPICS,
    USERS,
    check_passages,
    encoder_folder,
    instructir_folder,
    jsonl,
    numbered_folder,
    score_of_run,
)
from tests.stand_ins import LLAMA
from text.errors import UserError
from text.retrieval.tasks import Text, TextFormat

PAIRS = [
    {
        "query": query,
        "instruction": f"i am a {user}",
        "positive": {"_id": f"{query}{user}", "text": f"{query} for a {user}"},
        "negatives": ["spider parks", "cost of oak"],
        "positive_score": 3.0,
        "negative_scores": [1.0, float(n)],
        "group_id": query,
    }
    for query in ("wine cabinets", "spider legs")
    for n, user in enumerate(("designer", "brewer", "seller"))
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return encoder_folder(tmp_path_factory.mktemp("encoder"), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    return str(jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", PAIRS))


def quiet(root: Path | None = None, **options) -> Trainer:
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    return Trainer(accelerator="cpu", devices=1, default_root_dir=root, **(off | options))


def gradients(encoder: str, pairs: str, negatives: int = 2, steps: int = 1, **arguments) -> dict[str, torch.Tensor]:
    """What a step of SGD at rate 1 takes from every parameter."""
    torch.manual_seed(0)
    module = BiEncoder(PretrainedEncoder(encoder), optimizer=partial(torch.optim.SGD, lr=1.0), **arguments)
    data = BEIR(train=pairs, batch_size=6, siblings=3, num_negatives=negatives)
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    quiet(max_steps=steps, log_every_n_steps=1).fit(module, data)
    return {name: before[name] - p.detach() for name, p in module.named_parameters()}


def by_hand(encoder: str, pairs: str, loss, **head) -> dict[str, torch.Tensor]:
    """Gradients of ``loss(queries, documents, batch, temperature)`` of the same batch, without the module."""
    module = BiEncoder(PretrainedEncoder(encoder), **head)
    module.configure_model()
    data = BEIR(train=pairs, batch_size=6, siblings=3, num_negatives=2, tokenizer=EncoderTokenizer(encoder))
    data.setup("fit")
    (batch,) = data.train_dataloader()

    def embed(texts):
        hidden = module.model(texts.input_ids, attention_mask=texts.attention_mask).last_hidden_state
        mask = texts.attention_mask[..., None]
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    temperature = torch.tensor(0.05, requires_grad=True)
    value = loss(embed(batch.queries), embed(batch.documents), batch, temperature)
    value.backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return found | {"log_temperature": temperature.grad * temperature.detach()}


def nce(q, d, batch, tau):
    """One query at a time: its own passage against all others but copies of it."""
    total = 0
    for i in range(len(q)):
        others = [j for j in range(len(d)) if batch.document_keys[j] != batch.document_keys[i]]
        scores = torch.stack([q[i] @ d[i], *(q[i] @ d[j] for j in others)]) / tau
        total = total - F.log_softmax(scores, 0)[0]
    return total / len(q)


def prefixes(q, d, batch, tau):
    return sum(nce(F.normalize(q[:, :n], dim=-1), F.normalize(d[:, :n], dim=-1), batch, tau) for n in (4, 16)) / 2


def both_ways(q, d, batch, tau):
    back = F.cross_entropy(d[: len(q)] @ q.T / tau, torch.arange(len(q)))
    return (nce(q, d, batch, tau) + back) / 2


def distilled(q, d, batch, tau):
    own = torch.cat([d[:6, None], d[6:].view(6, 2, -1)], 1)
    student = F.log_softmax(torch.einsum("bd,bkd->bk", q, own) / tau, -1)
    teacher = F.softmax(batch.teacher_scores, -1)
    return nce(q, d, batch, tau) + 0.5 * (teacher * (teacher.log() - student)).sum(-1).mean()


@pytest.mark.oracle(
    "BiEncoder",
    "BiEncoder.backbone",
    "BiEncoder.temperature",
    "BiEncoder.learn_temperature",
    "BiEncoder.grad_cache_tokens",
    "BiEncoder.matryoshka_dims",
    "BiEncoder.bidirectional",
    "BiEncoder.distill_weight",
    "BEIR.num_negatives",
)
@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (nce, {}),
        (nce, {"learn_temperature": True}),
        (nce, {"grad_cache_tokens": 16}),
        (prefixes, {"matryoshka_dims": [4, 16]}),
        (prefixes, {"matryoshka_dims": [4, 16], "grad_cache_tokens": 40}),
        (both_ways, {"bidirectional": True}),
        (distilled, {"distill_weight": 0.5}),
    ],
)
def test_a_step_is_the_gradient_of_the_formula(encoder, pairs, loss, arguments):
    taken, expected = gradients(encoder, pairs, **arguments), by_hand(encoder, pairs, loss)
    for name, gradient in taken.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-6 + 1e-5 * scale)
    assert max(gradient.abs().max() for gradient in taken.values()) > 1e-2


def test_nothing_is_logged_on_demand(encoder, pairs):
    trainer = quiet(max_steps=1, log_every_n_steps=0)
    trainer.fit(BiEncoder(PretrainedEncoder(encoder)), BEIR(train=pairs, batch_size=6, siblings=3))
    assert trainer.global_step == 1
    assert not trainer.callback_metrics


def test_logged_qualities_are_means_over_micro_batches(encoder, pairs):
    """Of a whole step: with the same pairs in it, the mean of the two halves."""

    def logged(**options) -> dict:
        module = BiEncoder(PretrainedEncoder(encoder), optimizer=partial(torch.optim.SGD, lr=0.0))
        trainer = quiet(log_every_n_steps=1, **options)
        trainer.fit(module, BEIR(train=pairs, batch_size=6, siblings=3))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    halves = logged(max_steps=1, accumulate_grad_batches=2)
    whole = logged(max_steps=1)
    assert halves["train/positive_similarity"] == pytest.approx(whole["train/positive_similarity"], abs=1e-6)
    assert halves["train/temperature"] == pytest.approx(0.05)


def test_distillation_without_a_teacher_is_refused(tmp_path, encoder):
    bare = [{key: value for key, value in pair.items() if "score" not in key} for pair in PAIRS]
    path = str(jsonl(tmp_path / "pairs.jsonl", bare))
    for train, negatives in ((path, 2), (str(jsonl(tmp_path / "scored.jsonl", PAIRS)), 0)):
        module = BiEncoder(PretrainedEncoder(encoder), distill_weight=1.0)
        with pytest.raises(UserError, match="distill_weight: pairs need 'positive_score'"):
            quiet(max_steps=1).fit(module, BEIR(train=train, batch_size=2, num_negatives=negatives))


@pytest.mark.parametrize("dims", [[], [0, 4], [4, 17]])
def test_widths_that_embeddings_do_not_have_are_refused(encoder, pairs, dims):
    module = BiEncoder(PretrainedEncoder(encoder), matryoshka_dims=dims)
    with pytest.raises(UserError, match=r"'matryoshka_dims' is .*; the embeddings have 16 dimensions"):
        quiet(max_steps=1).fit(module, BEIR(train=pairs, batch_size=2))


def test_training_brings_pairs_together(encoder, pairs):
    module = BiEncoder(PretrainedEncoder(encoder), optimizer=partial(torch.optim.AdamW, lr=5e-3), temperature=0.1)
    data = BEIR(train=pairs, batch_size=6, siblings=3, num_negatives=2)
    trainer = quiet(max_steps=30, log_every_n_steps=1)
    trainer.fit(module, data)
    assert trainer.callback_metrics["train/in_batch_accuracy"] == 1
    assert trainer.callback_metrics["train/loss"] < 0.5


@pytest.mark.oracle("BEIR")
def test_a_run_with_dropout_resumes_bit_by_bit(tmp_path, pairs):
    from callbacks import RNGState

    folder = encoder_folder(tmp_path / "encoder")

    def fit(steps: int, ckpt: str | None = None) -> dict:
        torch.manual_seed(0)
        module = BiEncoder(
            PretrainedEncoder(folder), optimizer=partial(torch.optim.AdamW, lr=1e-3), grad_cache_tokens=32
        )
        trainer = quiet(tmp_path, max_steps=steps, callbacks=[RNGState()])
        trainer.fit(module, BEIR(train=pairs, batch_size=2, num_negatives=1), ckpt_path=ckpt)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return module.state_dict()

    fit(3)
    resumed, whole = fit(5, str(tmp_path / "3.ckpt")), fit(5)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


# ---- searching


def run_test(root: Path, encoder: str, folder: Path, **arguments) -> tuple[dict, Path]:
    """metrics.json and the run folder of ``main.py test``."""
    from cli.trainer_cli import main

    config = {
        "model": {"class_path": "BiEncoder", "init_args": {"backbone": {"class_path": "PretrainedEncoder"}}},
        "data": {"class_path": "InstructIR", "init_args": {"path": str(folder)}},
        "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
    }
    config["model"]["init_args"]["backbone"]["init_args"] = {"name_or_path": encoder}
    config["model"]["init_args"] |= arguments
    (root / "run.json").write_text(json.dumps(config))
    main(["test", "--config", str(root / "run.json"), f"--trainer.default_root_dir={root}"])
    run = max(root.glob("version_*"))
    return json.loads((run / "metrics.json").read_text()), run


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["main.py"])
    return tmp_path


def test_the_verb_writes_all_files(cache, encoder, capsys):
    folder = instructir_folder(cache / "data")
    metrics, run = run_test(cache, encoder, folder)
    assert metrics["task"] == "seed"
    assert {"ndcg@10", "robustness@10", "mrr@10", "recall@100"} <= set(metrics)
    assert set(metrics["paraphrase"]) >= {"ndcg@10", "robustness@10", "interval", "blind_ceiling", "sibling_accuracy"}
    assert metrics["blind_ceiling"]["ndcg@10"] == 1
    third = (1 + 1 / np.log2(3) + 1 / 2) / 3
    assert metrics["paraphrase"]["blind_ceiling"]["ndcg@10"] == pytest.approx((third + (1 + 1 / np.log2(3)) / 2) / 2)
    assert metrics["format"]["query"] == "sep"
    rows = [json.loads(line) for line in (run / "retrieval/per_query.jsonl").read_text().splitlines()]
    assert np.mean([row["ndcg@10"] for row in rows if row["task"] == "seed"]) == pytest.approx(metrics["ndcg@10"])
    trec = (run / "retrieval/seed.trec").read_text().splitlines()
    assert len(trec) == 5 * 3
    assert trec[0].split()[:2] == ["7_1", "Q0"]
    assert trec[0].split()[3] == "1"
    assert (run / "retrieval/ndcg_robustness.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "| paraphrase_query_only |" in said
    assert "`i am a designer of kitchens [SEP] wine cabinets`" in said


def test_what_is_predicted_scores_as_the_test_does(cache, encoder):
    folder = instructir_folder(cache / "data")
    metrics, _ = run_test(cache, encoder, folder)
    module, data = BiEncoder(PretrainedEncoder(encoder)), InstructIR(path=str(folder))
    quiet(cache, logger=True).predict(module, data)
    found = cache / "lightning_logs/version_0/retrieval"
    mine = score_of_run(found / "paraphrase.trec", folder, "paraphrase")
    assert mine == pytest.approx(metrics["paraphrase"]["ndcg@10"])
    texts = {f"i am a {user} [SEP] {topic}" for users in USERS.values() for user in users for topic in TOPICS.values()}
    check_passages(found, "paraphrase", texts)


def test_what_was_embedded_is_not_embedded_again(cache, encoder, capsys):
    folder = instructir_folder(cache / "data")
    first, _ = run_test(cache, encoder, folder)
    again, _ = run_test(cache, encoder, folder, k=2)
    assert "of before" not in capsys.readouterr().out
    other, _ = run_test(cache, encoder, folder, pooling="cls")
    told = f"{cache / 'cache' / 'embeddings'}: no embeddings of before are taken: 1 of other settings\n"
    assert told in capsys.readouterr().out
    texts = first["encoding"]["texts"]
    assert texts == 5 + 2 + 4 + 3  # instructions are queries of one task and passages of another
    assert first["encoding"]["damaged"] == again["encoding"]["damaged"] == 0
    assert [m["encoding"]["encoded"] for m in (first, again, other)] == [texts, 0, texts]
    assert again["ndcg@10"] == pytest.approx(first["ndcg@10"], abs=0.5)
    for name in ("mrr@10", "ndcg@10"):
        assert again["paraphrase"][name] <= first["paraphrase"][name]


@pytest.mark.parametrize("what", ["vectors", "keys"])
@pytest.mark.parametrize("damage", ["zeroed", "cut"])
def test_a_damaged_store_is_made_anew_and_told(cache, encoder, what, damage):
    folder = instructir_folder(cache / "data")
    first, _ = run_test(cache, encoder, folder)
    (file,) = (cache / "cache").glob(f"embeddings/*/*.{what}")
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)) if damage == "zeroed" else content[: len(content) // 2])
    if damage == "zeroed" and what == "vectors":
        with pytest.warns(UserWarning, match="14 kept embeddings were damaged, and have been made anew"):
            again, _ = run_test(cache, encoder, folder)
    else:
        again, _ = run_test(cache, encoder, folder)
    assert again["encoding"]["encoded"] == (14 if damage == "zeroed" else 7)
    for scores in (first, again):
        scores.pop("encoding")
    assert again == first
    healed, _ = run_test(cache, encoder, folder)
    assert healed["encoding"]["encoded"] == 0


def test_embeddings_are_kept_by_all_that_makes_them(cache, encoder):
    """Weights, projection, pooling, what is pooled, norm, precision: another one is another store; nothing else is."""
    other = encoder_folder(cache / "other", seed=1, hidden_dropout_prob=0.0)
    data = InstructIR(path=str(instructir_folder(cache / "data")), tasks=["seed"])

    def stores(folder: str = encoder, precision: str = "32-true", **arguments) -> int:
        torch.manual_seed(0)
        quiet(cache, precision=precision).test(BiEncoder(PretrainedEncoder(folder), **arguments), data, verbose=False)
        return len(list((cache / "cache/embeddings").iterdir()))

    assert [stores(), stores(k=3)] == [1, 1]
    assert [stores(other), stores(pooling="cls"), stores(pool_prefix=False), stores(normalize=False)] == [2, 3, 4, 5]
    assert [stores(projection=4), stores(precision="bf16-mixed"), stores(), stores(other)] == [6, 7, 7, 7]


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_a_part_of_the_texts_is_not_searched(cache, encoder, verb):
    """A score of some passages would be no score of the collection."""
    folder = instructir_folder(cache / "data")
    data = InstructIR(path=str(folder), val_split="test", search_batch_tokens=16)
    limits = {"limit_test_batches": 1, "limit_val_batches": 1}
    with pytest.raises(UserError, match=r"\d+ of 14 texts were not embedded, and a search needs all"):
        getattr(quiet(cache, **limits), verb)(BiEncoder(PretrainedEncoder(encoder), keep_embeddings=False), data)
    getattr(quiet(cache, fast_dev_run=True), verb)(BiEncoder(PretrainedEncoder(encoder), keep_embeddings=False), data)


def test_the_sanity_check_of_a_training_is_not_one_of_the_scores(cache, encoder, pairs):
    data = InstructIR(
        path=str(instructir_folder(cache / "data")), train=pairs, val_split="test", search_batch_tokens=16, batch_size=2
    )
    trainer = quiet(max_steps=1, num_sanity_val_steps=1, val_check_interval=1)
    trainer.fit(BiEncoder(PretrainedEncoder(encoder)), data)
    assert trainer.callback_metrics["val/ndcg@10"] > 0


def test_embeddings_that_are_not_finite_are_refused_with_their_text(cache, encoder):
    folder = instructir_folder(cache / "data")

    class Overflowing(BiEncoder):
        def embed(self, batch):
            vectors = super().embed(batch)
            vectors[-1] = float("inf")
            return vectors

    with pytest.raises(UserError, match=r"the embedding of '.+' is not finite"):
        quiet(cache).test(Overflowing(PretrainedEncoder(encoder), keep_embeddings=False), InstructIR(path=str(folder)))


def test_validation_scores_are_logged_and_leave_nothing(cache, encoder, pairs):
    module = BiEncoder(PretrainedEncoder(encoder))
    folder = instructir_folder(cache / "data")
    data = InstructIR(path=str(folder), train=pairs, val_split="test", batch_size=2)
    trainer = quiet(max_steps=1, num_sanity_val_steps=0, val_check_interval=1)
    trainer.fit(module, data)
    assert 0 < trainer.callback_metrics["val/ndcg@10"] <= 1
    assert not (cache / "cache").exists()


@pytest.mark.parametrize("judged", [True, False])
def test_equal_ids_drop_no_judged_passage(cache, encoder, judged):
    """In the test and in the validation that chooses checkpoints, for any k."""
    folder = numbered_folder(cache / "data", judged)

    def found(k: int, ignore: bool | str = "auto") -> list[float]:
        module = BiEncoder(PretrainedEncoder(encoder), k=k)
        data = BEIR(path=str(folder), val_split="test", ignore_identical_ids=ignore)
        (scores,) = quiet(cache).validate(module, data, verbose=False)
        quiet(cache).test(module, data, verbose=False)
        ignored = 4 if not judged and ignore else 0
        assert module.results["ignored_identical_ids"] == ignored
        assert scores["val/ndcg@10"] == pytest.approx(module.results["ndcg@10"])
        return [scores["val/recall@100"], scores["val/ndcg@10"]]

    assert found(8)[0] == 1
    if judged:
        assert found(1) == found(8) == found(8, True) == found(8, False)
    else:
        assert found(8)[1] > found(8, False)[1]  # where nothing is left out, the query itself is always first
        assert found(1) == found(7) == found(8)


# ---- leaving


def embedded(module: BiEncoder, texts: list[str], format: TextFormat) -> np.ndarray:
    table = tokenise([Text(text, 0) for text in texts], module.tokenizer, format.query_max_length, format.append_eos)
    with torch.no_grad():
        return module.eval().embed(table.batch(range(len(texts)))).numpy()


TEXTS = ["wine cabinets", "i am a designer of kitchens [SEP] spider legs", "oak " * 40]


@pytest.mark.oracle(
    "EncoderRetriever.pooling", "EncoderRetriever.normalize", "EncoderRetriever.projection", "SentenceFolder"
)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"pooling": "cls", "normalize": False}, {"pooling": "weighted_mean"}, {"pooling": "last", "projection": 5}],
)
def test_sentence_transformers_opens_what_was_trained(tmp_path, encoder, pairs, arguments):
    import sentence_transformers

    from callbacks import SentenceFolder

    module = BiEncoder(PretrainedEncoder(encoder), optimizer=partial(torch.optim.AdamW, lr=1e-2), **arguments)
    format = TextFormat(query_max_length=32, passage_max_length=24)
    data = BEIR(train=pairs, batch_size=6, siblings=3, format=format)
    trainer = quiet(tmp_path, max_steps=2, callbacks=[SentenceFolder()], logger=True)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "version_0/checkpoints/last.ckpt")
    data.tokenizer.save_pretrained(tmp_path / "version_0/tokenizer")
    export.main([str(tmp_path / "version_0"), str(tmp_path / "out")])
    mine = embedded(module, TEXTS, format)
    for folder in (tmp_path / "out", Path(trainer.log_dir) / "encoder"):
        theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
        np.testing.assert_allclose(theirs, mine, atol=1e-6, rtol=0)
    assert "| Pooling | " + module.pooling in (tmp_path / "out/README.md").read_text()
    if "projection" in arguments:
        arguments = arguments | {"projection": "pretrained"}
    reopened = BiEncoder(PretrainedEncoder(str(tmp_path / "out")), **arguments)
    reopened.tokenizer = data.tokenizer
    reopened.configure_model()
    np.testing.assert_allclose(embedded(reopened, TEXTS, format), mine, atol=1e-6, rtol=0)


def test_a_real_decoder_goes_through_lora_bf16_resume_and_export(tmp_path, pairs):
    """Vocabulary of 32k, grouped queries, bf16 file, last token: all but the width is real."""
    import sentence_transformers

    config = Qwen2Config(**LLAMA, vocab_size=32_768)
    torch.manual_seed(0)
    AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "qwen")
    tokenizer = EncoderTokenizer(encoder_folder(tmp_path / "words", closing_token="[SEP]")).build()
    tokenizer.save_pretrained(tmp_path / "qwen")
    format = TextFormat(query="e5_instruct", append_eos=True, query_max_length=16, passage_max_length=16)

    def fit(steps: int, name: str, ckpt: Path | None = None) -> BiEncoder:
        backbone = PretrainedEncoder(str(tmp_path / "qwen"), dtype="bfloat16", lora=LoRA(r=2))
        module = BiEncoder(backbone, pooling="last", temperature=0.01, grad_cache_tokens=64)
        data = BEIR(train=pairs, batch_size=6, siblings=3, num_negatives=1, format=format)
        trainer = quiet(tmp_path, max_steps=steps, precision="bf16-mixed")
        trainer.fit(module, data, ckpt_path=ckpt)
        trainer.save_checkpoint(tmp_path / name / "checkpoints/last.ckpt")
        data.tokenizer.save_pretrained(tmp_path / name / "tokenizer")
        return module

    fit(2, "first")
    module = fit(4, "version_0", tmp_path / "first/checkpoints/last.ckpt")
    assert (tmp_path / "first/checkpoints/last.ckpt").stat().st_size < 300_000  # the base has a million parameters
    export.main([str(tmp_path / "version_0"), str(tmp_path / "out"), "--dtype", "float32"])
    merged = BiEncoder(PretrainedEncoder(str(tmp_path / "out")), pooling="last")
    merged.configure_model()
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), embedded(merged, TEXTS, format), atol=1e-6, rtol=0)
    assert theirs.tokenizer(["oak"])["input_ids"][0][-1] == tokenizer.eos_token_id
    np.testing.assert_allclose(embedded(merged, TEXTS, format), embedded(module, TEXTS, format), atol=0.02)


# ---- what goes wrong


def test_what_cannot_work_is_refused(encoder, pairs):
    from lm.backbones.backbone import ScratchBackbone

    with pytest.raises(UserError, match="must be a PretrainedEncoder or a ScratchEncoder"):
        BiEncoder(ScratchBackbone("llama", {"hidden_size": 8}))
    with pytest.raises(UserError, match="'k' is 0; it must be 1 or more"):
        BiEncoder(PretrainedEncoder(encoder), k=0)
    with pytest.raises(UserError, match="'temperature' is 0"):
        BiEncoder(PretrainedEncoder(encoder), temperature=0)
    with pytest.raises(UserError, match=r"has no modules\.json"):
        BiEncoder(PretrainedEncoder(encoder), projection="pretrained").configure_model()
    scratch = ScratchEncoder("bert", {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1})
    with pytest.raises(UserError, match=r"data\.tokenizer is null"):
        quiet(max_steps=1).fit(BiEncoder(scratch), BEIR(train=pairs, batch_size=2))


def test_a_scratch_encoder_learns_its_words(pairs):
    config = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
    module = BiEncoder(ScratchEncoder("llama", config), pooling="last")
    assert isinstance(LlamaConfig(**config), LlamaConfig)
    data = BEIR(train=pairs, batch_size=2, tokenizer=WordTokenizer())
    quiet(max_steps=1).fit(module, data)
    assert "wine" in data.tokenizer.get_vocab()


# ---- the real encoder


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the repository")
def test_minilm_gives_its_published_vectors():
    module = BiEncoder(PretrainedEncoder("builtin:minilm"))
    module.configure_model()
    data = InstructIR(path=str(SHARED), tasks=["seed"])
    first = data.format.of_query(data.read_tasks("test")[0].queries[0]).string
    vector = embedded(module, [first], data.format)[0]
    np.testing.assert_allclose(vector[:3], [0.07686979, -0.0373642, -0.11944374], atol=1e-6)


MINILM = {
    "seed": (0.974981, 0.938173, 0.968594, 0.997991),
    "seed_query_only": (0.987128, 0.987128, 0.983835, 1),
    "paraphrase": (0.993925, 0.977928, 0.991852, 1),
    "paraphrase_query_only": (0.497859, 0.497859, 0.344800, 1),
}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the repository")
def test_minilm_on_the_real_benchmark(cache):
    """Some two minutes of one core with AVX-512, five without."""
    metrics, _ = run_test(cache, "builtin:minilm", SHARED)
    assert list(MINILM) == [metrics["task"], *(name for name in MINILM if name in metrics)]
    for task, golden in MINILM.items():
        scores = metrics if task == "seed" else metrics[task]
        found = [scores[name] for name in ("ndcg@10", "robustness@10", "mrr@10", "recall@100")]
        assert found == pytest.approx(golden, abs=5e-4)
