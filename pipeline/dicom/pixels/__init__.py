"""From series to volumes: pixel values, decoding, geometry."""
