"""A report for people: one HTML page that holds all it needs and opens offline."""
