"""Structure sets and segmentations, as label images."""
