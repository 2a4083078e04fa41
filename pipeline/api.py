"""The commands as functions, for Python: `from pipeline import api`; docs/reference/python-api.md.

Each takes paths as texts or `Path`, and options by the names of its command's; gives typed results; raises `UsageError`
where the command would end with exit code 2; and prints nothing unless asked to. `api.pyi` has the list, for readers,
type checkers and Python itself: a name is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub("pipeline", __file__)
