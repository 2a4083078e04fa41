"""Intensities made comparable: windows, z-scores, clipping, bias correction, denoising, local contrast."""
