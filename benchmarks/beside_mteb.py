"""The whole test of benchmarks/retrieval.py on both sides: from texts to nDCG@10 and Robustness@10, caches cold.

Needs the package mteb. The texts are those of our format on both sides.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import mteb
from lightning.pytorch import Trainer
from sentence_transformers import SentenceTransformer

from datamodules import InstructIR
from lm.backbones.encoder import PretrainedEncoder
from lm.files.packaged import packaged_model
from modules import BiEncoder
from text.retrieval.tasks import RetrievalTask, TextFormat

Scores = dict[str, tuple[float, float]]


def their_scores(tasks: Sequence[RetrievalTask]) -> Scores:
    """Task -> nDCG@10 and Robustness@10 by mteb and sentence-transformers."""
    peer = SentenceTransformer(str(packaged_model("builtin:minilm")), device="cpu")
    found = {}
    for task in tasks:
        options: dict[str, Any] = {"encode_kwargs": {"batch_size": 8, "show_progress_bar": False}}
        result = mteb.evaluate(peer, mteb_task(task), cache=None, show_progress_bar=False, **options)
        scores = result.task_results[0].scores["test"][0]
        found[task.name] = scores["ndcg_at_10"], scores["robustness_at_10"]
    return found


def our_scores(folder: Path, tasks: Sequence[RetrievalTask]) -> Scores:
    """The same by `main.py test`, files aside."""

    class Given(InstructIR):
        def read_tasks(self, split: str) -> list[RetrievalTask]:
            return list(tasks)

    module = BiEncoder(PretrainedEncoder("builtin:minilm"))
    with cold_cache(), tempfile.TemporaryDirectory() as root:
        options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=root, **options)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            trainer.test(module, Given(str(folder)), verbose=False)
    scores = {task.name: module.results.get(task.name, module.results) for task in tasks}
    return {name: (found["ndcg@10"], found["robustness@10"]) for name, found in scores.items()}


def shortened(task: RetrievalTask) -> RetrievalTask:
    """The same with few queries, and passages that are mostly theirs."""
    queries = task.queries[:24]
    qrels = {query.id: task.qrels[query.id] for query in queries}
    wanted = {passage for judged in qrels.values() for passage in judged}
    passages = tuple(p for place, p in enumerate(task.passages) if p.id in wanted or place < 40)
    return RetrievalTask(task.name, queries, passages, qrels, task.format)


def mteb_task(task: RetrievalTask) -> Any:
    """A task of theirs with our texts."""
    from datasets import Dataset
    from mteb._evaluators.retrieval_metrics import robustness_at_10
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    format = TextFormat()
    queries = [{"id": query.id, "text": format.of_query(query, task.format).string} for query in task.queries]
    corpus = [{"id": passage.id, "title": "", "text": format.of_passage(passage).string} for passage in task.passages]

    class Ours(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"InstructIR-{task.name}",
            description="The same texts.",
            dataset={"path": "local", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            reference=None,
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )

        def load_data(self, *_: Any, **__: Any) -> None:
            split: Any = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries)}
            split |= {"relevant_docs": {q: dict(judged) for q, judged in task.qrels.items()}, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

        def task_specific_scores(
            self, scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str
        ) -> dict[str, float]:
            return {"robustness_at_10": robustness_at_10(qrels, results, scores)}

    return Ours()


@contextmanager
def cold_cache() -> Iterator[None]:
    """A store of embeddings of its own."""
    before = os.environ.get("SEEDLING_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEEDLING_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("SEEDLING_CACHE")
            if before is not None:
                os.environ["SEEDLING_CACHE"] = before
