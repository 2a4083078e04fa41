"""From a hospital's DICOM tree to volumes: scan the headers, judge the geometry, choose the series, read the pixels."""
