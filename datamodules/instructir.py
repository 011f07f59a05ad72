"""InstructIR: does a retriever follow the instruction of its user? (arXiv 2402.14334).

Knows the benchmark's files. Any folder that has some of them can be measured: the official release, whose passages were
rewritten for every instruction, or the half of its queries with the seed passages they were made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datamodules.beir import BEIR
from datamodules.records import read_records
from datamodules.retrieval_folder import find_table, local_folder, made_queries, read_passages
from text.errors import UserError
from text.retrieval.qrels import read_qrels
from text.retrieval.retrieval_records import QueryRecord
from text.retrieval.tasks import GroupBy, Passage, RetrievalTask, topic_of
from text.suggestions import did_you_mean
from worlds import World

SENSITIVITY = "analysis_prompt_sensitivity"


@dataclass(frozen=True)
class Files:
    """Where a task stands in the folder.

    Args:
        queries: table of queries.
        qrels: file of judgements.
        corpus: table of passages.
        format: how query and instruction are put together, if the task demands it.
        group_by: over what Robustness takes the minimum.
    """

    queries: str
    qrels: str
    corpus: str = "corpus"
    format: str | None = None
    group_by: GroupBy = "query"


TASKS = {
    "official": Files("queries", "qrels/test.tsv"),
    "official_query_only": Files("only_queries", "qrels/for_only_query_test.tsv"),
    "official_instruction_only": Files("queries", "qrels/test.tsv", format="instruction_only"),
    "official_query_first": Files("queries", "qrels/test.tsv", format="sep_swapped"),
    "seed": Files("queries", "qrels/seed_test.tsv"),
    "seed_query_only": Files("only_queries", "qrels/seed_only_query_test.tsv"),
    "seed_instruction_only": Files("queries", "qrels/seed_test.tsv", format="instruction_only"),
    "seed_query_first": Files("queries", "qrels/seed_test.tsv", format="sep_swapped"),
    "paraphrase": Files(
        f"{SENSITIVITY}/5new_queries",
        f"{SENSITIVITY}/qrels/paraphrase_to_instruction.tsv",
        corpus="queries",
        group_by="instruction",
    ),
    "paraphrase_query_only": Files(
        f"{SENSITIVITY}/5new_queries",
        f"{SENSITIVITY}/qrels/paraphrase_to_instruction.tsv",
        corpus="queries",
        format="query_only",
        group_by="instruction",
    ),
}

SHORT = ("official", "official_query_only", "seed", "seed_query_only", "paraphrase", "paraphrase_query_only")


class InstructIR(BEIR):
    """The benchmark, with every task that a folder has the files for.

    * ``official``: find the passage that was rewritten for this instruction, among those of its siblings; the corpus
      must hold the rewritten passages. ``official_query_only`` asks for all of them by the query alone.
    * ``seed``: find the passage that the query was written for, which no instruction should lead away from.
    * ``paraphrase``: find, among all instructions, the one that this is a paraphrase of.

    ``*_query_only`` leave the instruction out, ``*_instruction_only`` the query; ``*_query_first`` swap the order.

    Args:
        path: a folder in the official layout, or ``hub:<id>[@revision]``, such as ``hub:kaist-ai/InstructIR``.
        tasks: which ones, the headline first; null takes those of ``SHORT`` that the folder has.
    """

    def __init__(self, path: str, tasks: list[str] | None = None, **kwargs):
        super().__init__(path, **kwargs)
        for name in tasks or ():
            if name not in TASKS:
                raise UserError(
                    f"data: there is no task '{name}'." + (did_you_mean(name, TASKS) or f" {', '.join(TASKS)}")
                )
        self.wanted = tasks

    def read_tasks(self, split: str) -> list[RetrievalTask]:
        """The wanted tasks, or all short ones that the folder has."""
        assert not isinstance(self.path, World)
        assert self.path is not None
        folder = local_folder(self.path)
        corpora: dict[str, tuple[Passage, ...]] = {}
        names = self.wanted or [name for name in SHORT if self._is_there(folder, TASKS[name], corpora)]
        if not names:
            raise UserError(
                f"{folder}: neither official nor seed task: a folder of InstructIR has queries.jsonl, corpus.jsonl and "
                "qrels/test.tsv or qrels/seed_test.tsv, whose passages are in the corpus (docs/instructir.md, data)"
            )
        return [self._task(folder, name, TASKS[name], corpora) for name in names]

    def _is_there(self, folder: Path, files: Files, corpora: dict[str, tuple[Passage, ...]]) -> bool:
        """Whether the files of a task exist and its first judged passage is in the corpus."""
        try:
            find_table(folder, files.queries), find_table(folder, files.corpus)
        except UserError:
            return False
        if not (qrels := folder / files.qrels).is_file():
            return False
        first = read_qrels(qrels)[0]
        return any(passage.id == first.passage for passage in self._corpus(folder, files.corpus, corpora))

    def _corpus(self, folder: Path, name: str, corpora: dict[str, tuple[Passage, ...]]) -> tuple[Passage, ...]:
        if name not in corpora:
            corpora[name] = read_passages(find_table(folder, name))
        return corpora[name]

    def _task(self, folder: Path, name: str, files: Files, corpora: dict[str, tuple[Passage, ...]]) -> RetrievalTask:
        passages = self._corpus(folder, files.corpus, corpora)
        queries = made_queries(read_records(find_table(folder, files.queries), QueryRecord), files.group_by)
        siblings: dict[str, set[str]] = {}
        if files.corpus == "queries":  # every instruction of the topic can be confused with the right one
            for passage in passages:
                siblings.setdefault(topic_of(passage.id), set()).add(passage.id)
        whole = {topic: frozenset(names) for topic, names in siblings.items()}
        return self.folder_task(name, folder / files.qrels, queries, passages, format=files.format, siblings=whole)
