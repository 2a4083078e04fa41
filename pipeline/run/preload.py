"""What a process that works for a run loads when it starts, while others do: dask imports it (`preload`)."""

from pipeline.spared import spare

spare()

import pipeline.run.flow  # noqa: E402, F401 - loads MONAI, without what no stage needs
