"""The regression gate: a frozen suite, measured as ratios within one run, against a stored baseline."""
