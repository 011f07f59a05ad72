"""Hidden states of models with or without an output layer, at the tokens of a forest whose states are wanted.

What lm/scoring/logprobs.py reads beside log-probs, for models that embed: a published decoder without its head is one.
It does not know what the states are for.

Legend: W states that are wanted, D their width.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from lm.forests.forest import Forest, Path
from lm.forests.rows import Reads
from lm.scoring.inputs import require_vocabulary
from lm.scoring.logprobs import SharePrefixes, forest_states, in_batches, inside
from lm.scoring.trial import encoder_takes_trees


def model_states(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes = "auto") -> Tensor:
    """Final hidden states that the paths of a forest want (`Path.state`), behind the last norm, [W, D].

    Args:
        model: a decoder of transformers with a head for tokens or with none, bare or in a PeftModel.
        forest: on the model's device; one that wants nothing still takes part in every collective operation.
        share_prefixes: see `lm.scoring.logprobs.forest_logprobs`.

    Raises:
        UserError: as `forest_states` does, and for a model that reads both ways.
    """
    decoder = inside(model)
    if decoder.get_output_embeddings() is not None:
        return forest_states(model, forest, share_prefixes=share_prefixes)
    device = forest.input_ids.device
    if not len(forest.host.state_rows):
        return model_states(model, replace(_SOMETHING.to(device), vectors=forest.vectors), share_prefixes)[:0]
    require_vocabulary(decoder, forest.host.input_ids, forest.vectors)
    takes_trees = encoder_takes_trees(model, decoder, device)

    def compute(inputs: dict, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        states = model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[sources.to(device)]
        return states[:0, 0], states

    reads = Reads(forest.host.state_rows, forest.host.targets[:0])
    return in_batches(model, forest, reads, share_prefixes, lambda: takes_trees, compute)[1]


_SOMETHING = Forest.from_paths([Path([0], 1, state=True)])
