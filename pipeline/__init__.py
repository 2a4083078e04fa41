"""Tandem: two (or more) modalities of one patient, travelling in tandem. Research use only, not a medical device."""

from importlib.metadata import version

__version__ = version("tandem-imaging")
