"""The study engine: plan, run, verdict, report."""
