"""What feeds, watches or exports a run."""

__all__: list[str] = []
