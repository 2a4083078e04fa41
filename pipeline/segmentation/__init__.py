"""Segmentation with nnU-Net: data sets, weights, training, and prediction that keeps geometry, labels and logits."""
