"""Header reading: what a file says of itself, with no pixel read."""
