"""A small retrieval folder in the official layouts, and tiny encoders, for the tests of everything that searches."""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from lm.backbones.encoder import WordTokenizer

SHARED = Path(__file__).parents[1] / "../shared/data/instructir"

TOPICS = {"7": "wine cabinets", "8": "spider legs"}
USERS = {"7": ["designer of kitchens", "brewer at home", "seller of oak"], "8": ["child in school", "keeper of zoo"]}


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tsv(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [("qid", "pid", "score"), *rows]))


def instructir_folder(path: Path, official: bool = False) -> Path:
    """Two topics, five instructions, one distractor; paraphrases of the first instruction of each topic."""
    asked = [(t, n, user) for t, users in USERS.items() for n, user in enumerate(users, 1)]
    queries = [{"_id": f"{t}_{n}", "text": f"i am a {user} [SEP] {TOPICS[t]}"} for t, n, user in asked]
    jsonl(path / "queries.jsonl", queries)
    jsonl(path / "only_queries.jsonl", [{"_id": t, "text": text} for t, text in TOPICS.items()])
    passages = [{"_id": "90", "title": "", "text": "the operating cost of parks"}]
    if official:
        passages += [{"_id": f"p{t}_{n}", "title": "", "text": f"{TOPICS[t]} for a {user}"} for t, n, user in asked]
    else:
        passages += [{"_id": f"p{t}", "title": "", "text": f"all about {text}"} for t, text in TOPICS.items()]
    jsonl(path / "corpus.jsonl", passages)
    tsv(path / "qrels/test.tsv", [(f"{t}_{n}", f"p{t}_{n}", 1) for t, n, _ in asked])
    tsv(path / "qrels/for_only_query_test.tsv", [(t, f"p{t}_{n}", 1) for t, n, _ in asked])
    tsv(path / "qrels/seed_test.tsv", [(f"{t}_{n}", f"p{t}", 1) for t, n, _ in asked])
    tsv(path / "qrels/seed_only_query_test.tsv", [(t, f"p{t}", 1) for t in TOPICS])
    again = path / "analysis_prompt_sensitivity"
    wordings = [(t, m, f"{start} {USERS[t][0]}") for t in TOPICS for m, start in enumerate(("as a", "being a"), 1)]
    rows = [{"_id": f"{t}_1.{m}", "text": f"{words} [SEP] {TOPICS[t]}"} for t, m, words in wordings]
    jsonl(again / "5new_queries.jsonl", rows)
    tsv(again / "qrels/paraphrase_to_instruction.tsv", [(f"{t}_1.{m}", f"{t}_1", 1) for t, m, _ in wordings])
    return path


def beir_folder(path: Path) -> Path:
    """Three plain queries, one of them without a relevant passage."""
    jsonl(path / "corpus.jsonl", [{"_id": i, "title": "t", "text": f"word{i} common"} for i in range(6)])
    jsonl(path / "queries.jsonl", [{"_id": f"q{i}", "text": f"word{i}", "metadata": {}} for i in range(3)])
    tsv(path / "qrels/test.tsv", [("q0", "0", 2), ("q0", "3", 1), ("q1", "1", 1), ("q1", "2", -1), ("q2", "2", 0)])
    return path


def numbered_folder(path: Path, judged: bool) -> Path:
    """Queries and passages with the same numbers: the answers to queries, or the queries themselves and no answers."""
    topics = ["wine cabinets", "spider legs", "oak parks", "kitchens home"]
    if judged:  # 0 is answered by 0, 1 by 1, and so on; what says the query's own words comes under another number
        passages = [f"all about {topic}" for topic in topics]
        relevant = [(n, n, 1) for n in range(4)]
    else:  # as ArguAna: under its own number each query stands in the collection; 4 to 7 answer them
        passages = [*topics, *(f"the cost of {topic}" for topic in topics)]
        relevant = [(n, n + 4, 1) for n in range(4)]
    jsonl(path / "corpus.jsonl", [{"_id": n, "title": "", "text": text} for n, text in enumerate(passages)])
    jsonl(path / "queries.jsonl", [{"_id": n, "text": text} for n, text in enumerate(topics)])
    tsv(path / "qrels/test.tsv", relevant)
    return path


def score_of_run(run: Path, folder: Path, task: str) -> float:
    """Mean nDCG@10 of a TREC run of an official task, by pytrec_eval."""
    import pytrec_eval

    from datamodules.instructir import TASKS
    from text.retrieval.qrels import read_qrels

    qrels: dict[str, dict[str, int]] = {}
    for judged in read_qrels(folder / TASKS[task].qrels):
        qrels.setdefault(judged.query, {})[judged.passage] = judged.relevance
    with run.open() as lines:
        scores = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(pytrec_eval.parse_run(lines))
    return sum(scores[query]["ndcg_cut_10"] if query in scores else 0.0 for query in qrels) / len(qrels)


def check_passages(found: Path, task: str, first: set[str]) -> None:
    """The passages of a task are those of its run, in order, with their words; queries differ in what they find.

    Args:
        found: the folder of both files.
        task: name of the task.
        first: texts of which the best passage of the first query is one.
    """
    lines = [json.loads(line) for line in (found / f"{task}.jsonl").read_text().splitlines()]
    ranked = [row.split() for row in (found / f"{task}.trec").read_text().splitlines()]
    written = [(line["id"], p["id"], p["score"]) for line in lines for p in line["passages"]]
    assert [(query, passage) for query, _, passage, *_ in ranked] == [(query, passage) for query, passage, _ in written]
    assert [float(row[4]) for row in ranked] == [float(f"{score:.9g}") for *_, score in written]
    assert lines[0]["passages"][0]["text"] in first
    assert len({line["passages"][0]["id"] for line in lines}) > 1


def encoder_folder(path: Path, seed: int = 0, closing_token: str | None = None, **config) -> str:
    """A two-layer BERT with a word tokenizer of the words above."""
    words = " ".join([*TOPICS.values(), *(user for users in USERS.values() for user in users)])
    tokenizer = WordTokenizer().build(
        [f"{words} i am a the operating cost of parks all about for as being [SEP] common"]
    )
    tokenizer.eos_token = closing_token
    tokenizer.save_pretrained(path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(seed)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **(sizes | config)))
    model.save_pretrained(path)
    return str(path)
