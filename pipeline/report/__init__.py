"""Reports: one PDF and one self-contained web page a case, and the page of the cohort. Research use only.

The public names are imported when they are first used, so that `import pipeline.report` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cohort": ["cohort_page"],
        "content": ["CaseContent", "case_content"],
        "html": ["case_page"],
        "pdf": ["case_pdf"],
        "transform": ["Reportd"],
        "verdict": ["case_verdict"],
    },
)
