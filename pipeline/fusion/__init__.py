"""Networks that look at two or more modalities of one patient: early, intermediate and late fusion, compared fairly."""
