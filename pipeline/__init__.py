"""Tandem: two (or more) modalities of one patient, travelling in tandem. Research use only, not a medical device."""

import os
from getpass import getuser
from importlib.metadata import version

__version__ = version("tandem-imaging")

try:
    getuser()
except (KeyError, OSError):  # a container that runs under any number: MONAI and torch ask for the user's name at once
    os.environ["USER"] = str(os.getuid())
