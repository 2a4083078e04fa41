"""nnU-Net's own process: `python -m pipeline.segmentation TASK ANSWER < JSON`, see `pipeline.segmentation.worker`.

A process that nnU-Net spawns loads the main module again, unless that is a `__main__.py`: each would load all of ours.
"""

import sys

from pipeline.segmentation.worker import main

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
