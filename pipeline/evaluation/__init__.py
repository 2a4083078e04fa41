"""How good predictions are: measures, intervals over patients, and paired comparisons of models."""
