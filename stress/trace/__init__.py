"""Traces of a run for other tools: timelines for ui.perfetto.dev, table changes for break-before-make checkers."""
