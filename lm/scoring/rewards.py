"""Rewards of whole texts: the scalar head at the last token of every path of a forest.

What lm/scoring/logprobs.py is for models that predict tokens. Prompts are computed once for all their answers, and
padding is nowhere, so that its side cannot matter. It does not know what the rewards are for.

Legend: P paths.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from lm.forests.forest import Forest, Path
from lm.forests.rows import Reads
from lm.scoring.inputs import require_vocabulary
from lm.scoring.logprobs import SharePrefixes, in_batches, inside, path_lengths
from lm.scoring.states import read_in_head
from lm.scoring.trial import scorer_takes_trees
from text.errors import UserError


def forest_rewards(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes = "auto") -> Tensor:
    """The reward of every path: w . h, with h the final hidden state of its last token (janus.md 3.4).

    The first forest of a model costs a few tiny forwards more, in which it is checked against the model's own reward.

    Args:
        model: a sequence classifier of transformers with one label (lm/backbones/reward_backbone.py), bare, in a
            PeftModel or in DistributedDataParallel; sharded, quantised or neither.
        forest: of layout "ends" (lm/forests/answer_forests.py): one prediction per path, made by its last token. It is
            on the model's device. One without paths still takes part in every collective operation.
        share_prefixes: see `lm.scoring.logprobs.forest_logprobs`.

    Returns: [P], float32 or wider.

    Raises:
        UserError: a forest of another layout, a token id outside the vocabulary, or a model of another kind.
    """
    device = forest.input_ids.device
    if len(forest.path_offsets) == 1:
        nothing = replace(Forest.from_paths([Path([0, 0], 1)]).to(device), vectors=forest.vectors)
        return forest_rewards(model, nothing, share_prefixes)[:0]
    if bool((path_lengths(forest.host) != 1).any()):
        raise UserError("rewards are read at the ends of paths: the forest must be of layout 'ends'")
    scorer = inside(model)
    require_vocabulary(scorer, forest.host.input_ids, forest.vectors)
    takes_trees = scorer_takes_trees(model, scorer, device)  # also checks the head

    def compute(inputs: dict, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        rewards = read_in_head(model, scorer, inputs, sources.to(device), lambda head, states_PD: head(states_PD))
        return rewards[:0], rewards

    ends = Reads(forest.host.sources[forest.host.path_targets], forest.host.targets[:0])
    return in_batches(model, forest, ends, share_prefixes, lambda: takes_trees, compute)[1]
