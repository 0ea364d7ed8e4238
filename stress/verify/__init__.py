"""Every schedule of a toy machine that can differ, played by the very kernels of the live run as plain Python."""
