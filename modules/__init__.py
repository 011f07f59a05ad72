"""One file per method: a LightningModule that reads like the method section of its paper."""

__all__: list[str] = []
