"""Compiled code: arrays and integers only. Page-table operations, the vCPU's MMU, and the oracle's checks."""
