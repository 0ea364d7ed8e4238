"""A test bench for stage-2 page-table rebuild orders."""

__version__ = "0.1.0"
