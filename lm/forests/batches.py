"""Batches: dense rows of token ids, padded texts for encoders, and forests with what a loss asks of their paths.

A batch is plain tensors and says nothing of where its text came from. Forests themselves are in lm/forests/forest.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lm.forests.forest import Forest


@dataclass
class TokenRows:
    """Rows of equal length, without padding: every position predicts the next one.

    Args:
        input_ids: token ids [B, S], int64.
    """

    input_ids: Tensor

    def __len__(self) -> int:
        """Number of rows B."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenRows:
        """The same rows on another device."""
        return TokenRows(self.input_ids.to(device, non_blocking=non_blocking))


@dataclass
class TextBatch:
    """Texts for an encoder, padded on the right to the longest.

    Args:
        input_ids: token ids [B, L], int64.
        attention_mask: 1 at tokens, 0 at padding [B, L], int64.
        content_from: the first token of each row that is the text itself, after an instruction or a prefix [B], int64.
        rows: which text each row is, for whoever made the batch [B], int64.
    """

    input_ids: Tensor
    attention_mask: Tensor
    content_from: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Number of texts B."""
        return self.input_ids.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> TextBatch:
        """Some of the texts, without the columns that are padding in all of them."""
        mask = self.attention_mask[rows]
        width = int(mask.sum(dim=1).amax())
        return TextBatch(self.input_ids[rows, :width], mask[:, :width], self.content_from[rows], self.rows[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextBatch:
        """The same texts on another device."""
        parts = (self.input_ids, self.attention_mask, self.content_from, self.rows)
        return TextBatch(*(part.to(device, non_blocking=non_blocking) for part in parts))


@dataclass
class ContrastiveBatch:
    """Queries and the documents they are trained with.

    Args:
        queries: B texts.
        documents: the B positives in the order of the queries, then N hard negatives of each query in turn.
        document_keys: equal for equal documents [B (1 + N)], int64, never 0.
        positive_keys: of all known positives of each query [B, P], int64, padded with 0.
        teacher_scores: of a teacher for each query's positive and hard negatives [B, 1 + N], or None.
    """

    queries: TextBatch
    documents: TextBatch
    document_keys: Tensor
    positive_keys: Tensor
    teacher_scores: Tensor | None = None

    def __len__(self) -> int:
        """Number of queries B."""
        return len(self.queries)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ContrastiveBatch:
        """The same batch on another device."""
        parts = (self.queries, self.documents, self.document_keys, self.positive_keys, self.teacher_scores)
        return ContrastiveBatch(*(p if p is None else p.to(device, non_blocking=non_blocking) for p in parts))  # type: ignore[arg-type]


@dataclass
class PairBatch:
    """Preference pairs as paths of one forest: the chosen and the rejected side of pair i are paths 2 i and 2 i + 1.

    Args:
        forest: at least 2 B paths; what stands beyond them is up to the layout that was asked for
        (lm/forests/answer_forests.py).
        rows: number of each pair in its split [B], int64: the key of precomputed references.
        weights: of each pair's loss [B], float32.
        margins: by which the chosen side should win [B], float32; 0 where the data says nothing.
        ids: of the pairs, for messages.
        references: sums of reference log-probs that came with the data, nats [2 B], float32, in the order of the paths.
        smoothing: how likely it is that the rejected side is the better one [B], float32; None where nobody says.
    """

    forest: Forest
    rows: Tensor
    weights: Tensor
    margins: Tensor
    ids: list[str]
    references: Tensor | None = None
    smoothing: Tensor | None = None

    def __len__(self) -> int:
        """Number of pairs B."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """The same pairs on another device."""
        rows, weights, margins = (
            part.to(device, non_blocking=non_blocking) for part in (self.rows, self.weights, self.margins)
        )
        references, smoothing = (
            part if part is None else part.to(device, non_blocking=non_blocking)
            for part in (self.references, self.smoothing)
        )
        return PairBatch(self.forest.to(device), rows, weights, margins, self.ids, references, smoothing)


@dataclass
class LabelledBatch:
    """Completions that are good or bad by themselves: completion i after its own prompt is path i < R.

    Args:
        forest: from path R on, completions after the prompt of another record: what they score tells how far a policy
            has moved in general (KTO, arXiv 2402.01306). A completion whose mismatched prompt is its own has none.
        labels: whether a completion is desirable [R], bool.
        rows: number of each completion in its split [R], int64.
        weights: of each completion's loss [R], float32.
        ids: of the completions, for messages.
    """

    forest: Forest
    labels: Tensor
    rows: Tensor
    weights: Tensor
    ids: list[str]

    def __len__(self) -> int:
        """Number of completions R."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelledBatch:
        """The same completions on another device."""
        labels, rows, weights = (
            part.to(device, non_blocking=non_blocking) for part in (self.labels, self.rows, self.weights)
        )
        return LabelledBatch(self.forest.to(device), labels, rows, weights, self.ids)


@dataclass
class JudgmentBatch:
    """What judges say of responses: judgement i after its question is path i.

    Args:
        forest: B paths; some may be answers that judge nothing, whose targets are neither verdict nor feedback.
        verdict: which targets of all paths are a verdict [K], bool.
        feedback: which of them are reasons: what comes before the marker of a verdict, or after a label [K], bool.
    """

    forest: Forest
    verdict: Tensor
    feedback: Tensor

    def __len__(self) -> int:
        """Number of judgements B."""
        return len(self.forest)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> JudgmentBatch:
        """The same judgements on another device."""
        verdict, feedback = (part.to(device, non_blocking=non_blocking) for part in (self.verdict, self.feedback))
        return JudgmentBatch(self.forest.to(device), verdict, feedback)


@dataclass
class RewardedBatch:
    """Answers that were drawn and rewarded: answer i after its prompt is path i, those of a prompt one tree.

    Args:
        forest: P paths.
        advantages: of each answer over others to its prompt [P], float32.
        weights: of each answer's tokens in the loss [P], float32.
        ids: of the prompts.
        old_logprobs: of all targets of the paths under the policy that wrote them, nats [K]; None until it is asked.
    """

    forest: Forest
    advantages: Tensor
    weights: Tensor
    ids: list[str]
    old_logprobs: Tensor | None = None

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RewardedBatch:
        """The same answers on another device."""
        advantages, weights = (part.to(device, non_blocking=non_blocking) for part in (self.advantages, self.weights))
        old = None if self.old_logprobs is None else self.old_logprobs.to(device, non_blocking=non_blocking)
        return RewardedBatch(self.forest.to(device), advantages, weights, self.ids, old)


@dataclass
class PromptBatch:
    """Prompts to generate from; they stay on the host, where engines sort and pad them.

    Args:
        prompts: token ids of each.
        rows: number of each prompt in its source.
        ids: of the prompts.
        records: what is handed through to the output beside the answers.
    """

    prompts: list[list[int]]
    rows: list[int]
    ids: list[str]
    records: list[dict]

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.prompts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PromptBatch:
        """The same prompts: nothing of them is on a device."""
        return self
