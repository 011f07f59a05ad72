"""Log-probs, states and rewards of forests, the likelihood of choices, and reference policies.

It does not know prompts or methods.
"""

from lm.scoring.choices import ChoiceLogprobs, choice_logprobs
from lm.scoring.logprobs import (
    forest_logprobs,
    forest_logprobs_and_states,
    forest_states,
    path_lengths,
    path_sums,
    row_logprobs,
)
from lm.scoring.model_scores import ModelScores
from lm.scoring.reference import choose_reference
from lm.scoring.rewards import forest_rewards

__all__ = [
    "ChoiceLogprobs",
    "ModelScores",
    "choice_logprobs",
    "choose_reference",
    "forest_logprobs",
    "forest_logprobs_and_states",
    "forest_rewards",
    "forest_states",
    "path_lengths",
    "path_sums",
    "row_logprobs",
]
