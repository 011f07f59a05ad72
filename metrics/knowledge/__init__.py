"""How facts are learned and forgotten: definitions, traces, samples of probes, the report and its figures."""
