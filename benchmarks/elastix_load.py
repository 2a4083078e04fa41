"""How long a process takes to load elastix, and its memory then: Tandem's way beside that of itk's documentation.

`python -m benchmarks.elastix_load` prints both.
"""

from __future__ import annotations

import subprocess
import sys

import typer

WAYS = {
    "itk.ElastixRegistrationMethod": "import itk; itk.ElastixRegistrationMethod, itk.ParameterObject, itk.imread",
    "pipeline.registration.elastix.load": "from pipeline.registration.elastix import load; load()",
}
#: Seconds on a processor and MB of the process, which imports numpy and SimpleITK either way.
MEASURE = """
import resource
import numpy, SimpleITK
before = resource.getrusage(resource.RUSAGE_SELF)
{way}
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024)
"""


def main(times: int = 3) -> None:
    """Load it in processes of their own, in turn, and print the least of each."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(times):
        for name, way in WAYS.items():
            command = [sys.executable, "-c", MEASURE.format(way=way)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, memory = map(float, done.stdout.split())
            found[name].append((seconds, memory))
    slowest = min(found["itk.ElastixRegistrationMethod"])
    for name, values in found.items():
        seconds, memory = min(values)
        print(f"{name}: {seconds:.1f} s of a processor, {memory:.0f} MB; {slowest[0] / seconds:.1f} x as fast")


if __name__ == "__main__":
    typer.run(main)
