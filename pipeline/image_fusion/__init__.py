"""One picture of CT and MR: how to make it, and how good it is."""
