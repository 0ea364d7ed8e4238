"""Costs of a machine from logs of the KVM selftests: what they tell is fitted, with intervals; the rest is a guess."""
