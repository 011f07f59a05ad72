"""One file per kind of data: how records become batches."""

__all__: list[str] = []
