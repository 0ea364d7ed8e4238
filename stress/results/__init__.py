"""What a run leaves behind: statistics, the JSON document and its keys, the store, the tables."""
