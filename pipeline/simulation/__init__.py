"""Images with known truth: a position phantom, DICOM series with planted faults, and a cohort of simulated heads."""
