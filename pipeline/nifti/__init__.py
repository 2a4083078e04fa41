"""NIfTI in: one file read with certainty, and a tree of files as the cases of a data spec."""
