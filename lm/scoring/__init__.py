"""Log-probs, states and rewards of forests, the attention beneath them, and reference policies.

It does not know prompts or methods.
"""

from lm.scoring.logprobs import forest_logprobs, path_lengths, path_sums, row_logprobs
from lm.scoring.reference import choose_reference
from lm.scoring.rewards import forest_rewards

__all__ = [
    "choose_reference",
    "forest_logprobs",
    "forest_rewards",
    "path_lengths",
    "path_sums",
    "row_logprobs",
]
