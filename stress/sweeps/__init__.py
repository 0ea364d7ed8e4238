"""Sweeps: many points run one after the other, here or on a cluster, each result appended to one file."""
