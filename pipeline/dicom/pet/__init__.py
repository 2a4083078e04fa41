"""Uptake values of PET."""
