"""What is wrong with records of answers that cite beyond their schema: what they refer to, and reserved words.

Knows records. It does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from text.errors import UserError
from text.records import Located
from text.suggestions import did_you_mean


@dataclass(frozen=True)
class Checks:
    """Looks at records.

    Args:
        reserved: the first control token that stands in some words; None if there is none.
        templates: of questions, by task.
        passages: ids of those that there are.
        corpus: what these are called.
    """

    reserved: Callable[[str], str | None]
    templates: Mapping[str, str]
    passages: Collection[str]
    corpus: str

    def problems(self, found: Located[Any], cited: Mapping[str, Sequence[str]]) -> list[str]:
        """What is wrong with a question or an answer.

        Args:
            found: the record.
            cited: ids of passages by the field that names them.
        """
        record, problems = found.record, list[str]()
        if record.task is not None and record.task not in self.templates:
            hint = did_you_mean(record.task, self.templates) or f" There are {', '.join(self.templates)}"
            problems.append(f"{found.where}: field 'task': no template for '{record.task}' in data.templates.{hint}")
        problems += reserved_words(found.where, dict(record.words()), self.reserved)
        for field, ids in cited.items():
            if lacking := [id for id in ids if id not in self.passages]:
                problems.append(self._no_passage(found.where, field, *lacking))
        return problems

    def hidden_gold(self, record: Any) -> list[str]:
        """Ids of the gold passages that a question cannot find: in the corpus, or among its candidates."""
        among = self.passages if record.candidate_ids is None else record.candidate_ids
        return [id for id in record.gold_ids if id not in self.passages or id not in among]

    def why_hidden(self, found: Located[Any], id: str) -> str:
        """What is wrong with a question that cannot find a gold passage."""
        if id not in self.passages:
            return self._no_passage(found.where, "gold_ids", id)
        remedy = "nothing could find it: add it, or give data.missing_gold count"
        return f"{found.where}: field 'candidate_ids': lacks the gold passage '{id}': {remedy}"

    def _no_passage(self, where: str, field: str, id: str, *others: str) -> str:
        more = f" and {len(others)} more" if others else ""
        remedy = f"add it to data.corpus, or mend the id.{did_you_mean(id, self.passages)}"
        return f"{where}: field '{field}': no passage '{id}'{more} in {self.corpus}: {remedy}"


def reserved_words(where: str, words: Mapping[str, str], reserved: Callable[[str], str | None]) -> list[str]:
    """Fields whose words hold a control token: a model would read it as one."""
    problems = []
    for field, text in words.items():
        if token := reserved(text):
            remedy = "take it out, or give data.tokens other names"
            problems.append(f"{where}: field '{field}': holds '{token}', which is a control token: {remedy}")
    return problems


def check_template(name: str, template: str, fields: Sequence[str], needed: str) -> None:
    """Refuse a template that asks for other fields than there are, or leaves out what matters.

    Raises:
        UserError: naming it.
    """
    known = " and ".join(f"{{{field}}}" for field in fields)
    try:
        template.format(**dict.fromkeys(fields, ""))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"data: template '{name}' {template!r} may use {known} alone: {error!r}") from error
    if f"{{{needed}}}" not in template:
        raise UserError(f"data: template '{name}' {template!r} has no {{{needed}}}")
