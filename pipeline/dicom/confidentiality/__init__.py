"""DICOM confidentiality: what becomes of every attribute. Source: DICOM PS3.15 Annex E."""
