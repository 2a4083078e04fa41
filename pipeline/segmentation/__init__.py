"""Segmentation with nnU-Net v2: its datasets, models, trainings and predictions."""
