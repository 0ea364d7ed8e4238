"""The command line: thin commands over the configuration, the executors and the results."""
