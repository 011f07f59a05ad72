"""Files of models and what is made from them: found, kept in the cache, written whole, checked when read.

It does not know what tokens mean, nor what is in a checkpoint.
"""

from lm.files.append_log import AppendLog
from lm.files.embedding_store import EmbeddingStore
from lm.files.hyperparameters import PlainHyperparameters, public_name
from lm.files.kept_files import cache_folder, kept_folder
from lm.files.names import resolve
from lm.files.packaged import packaged_model

__all__ = [
    "AppendLog",
    "EmbeddingStore",
    "PlainHyperparameters",
    "cache_folder",
    "kept_folder",
    "packaged_model",
    "public_name",
    "resolve",
]
