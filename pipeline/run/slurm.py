"""`tandem run --slurm FILE`: jobs of SLURM do the work, each with one worker process, through dask-jobqueue."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.child import THREADS
from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.spec.resources import Slurm
from pipeline.words import counted

#: Stands in a script that is only looked at for what is known when a run starts.
SCHEDULER, NAME = "tls://SCHEDULER:PORT", "NAME"
CERTIFICATE = {"tls_ca_file": "CERTIFICATE", "tls_worker_cert": "CERTIFICATE", "tls_worker_key": "KEY"}
#: A process loads what it needs when it starts, and not at its first case.
PRELOAD = ("--preload", "pipeline.run.preload")
_THREADS = (*THREADS, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def script(asked: Slurm) -> str:
    """The job's script, as SLURM is given it; E_EXTRA without dask-jobqueue."""
    from dask.distributed import Security

    safe = {"protocol": "tls://", "security": Security(require_encryption=True, **CERTIFICATE)}
    return str(_jobqueue().slurm.SLURMJob(SCHEDULER, NAME, **safe, **_options(asked)).job_script())


@contextlib.contextmanager
def submitted(asked: Slurm, options: Mapping[str, Any], shared: Path) -> Iterator[Any]:
    """A client of the processes of jobs; those are cancelled behind the block. One that ends is followed by another.

    Args:
        asked: what jobs there are.
        options: of dask's scheduler.
        shared: a folder that the jobs see, too: takes the certificate of this run, which its user alone can read.

    Raises:
        UsageError: E_EXTRA; E_SLURM where there is no SLURM, where it refuses the job, or where none has started.
    """
    from dask.distributed import Client

    _require_accepted(script(asked))
    network = {"interface": asked.interface} if asked.interface else {}
    safe = {"security": True, "shared_temp_directory": str(shared)}
    whole = {"scheduler_options": {**options, **network}, "silence_logs": 50, **_options(asked), **network, **safe}
    with _jobqueue().SLURMCluster(**whole) as cluster, Client(cluster) as client:
        cluster.adapt(minimum_jobs=asked.jobs, maximum_jobs=asked.jobs)
        echo(f"Waiting for the first of {counted(asked.jobs, 'job')} of SLURM to start.")
        try:
            client.wait_for_workers(1, timeout=60 * asked.wait_min)
        except TimeoutError as error:
            what = f"Expected a job of SLURM to start within {asked.wait_min:g} minutes, got none."
            remedy = "Look at `squeue`; give `logs: FOLDER` to see what a job prints, or wait longer (`wait_min`)."
            raise UsageError("E_SLURM", what, remedy) from error
        yield client


def _options(asked: Slurm) -> dict[str, Any]:
    """The arguments of dask-jobqueue: one process with one thread that takes cases, and libraries with all cores."""
    extra = [*([f"--gres=gpu:{asked.gpus}"] if asked.gpus else []), *asked.job_extra]
    return {
        **{"queue": asked.queue or None, "account": asked.account or None, "walltime": asked.walltime},
        **{"cores": 1, "processes": 1, "job_cpu": asked.cores, "memory": f"{asked.memory_gb:g}GB"},
        "python": asked.python or sys.executable,
        "job_name": "tandem",
        "job_script_prologue": [*(f"export {name}={asked.cores}" for name in _THREADS), *asked.env],
        "job_extra_directives": [*extra, *([] if asked.logs else ["-o /dev/null", "-e /dev/null"])],
        "log_directory": asked.logs or None,
        "worker_extra_args": [*PRELOAD, *(["--resources", "GPU=1"] if asked.gpus else [])],
    }


def _require_accepted(text: str) -> None:
    """Ask SLURM whether it would take the job; E_SLURM where not."""
    if shutil.which("sbatch") is None:
        raise UsageError("E_SLURM", "Expected the command `sbatch`, to submit jobs, got no such command here.")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "job.sh"
        path.write_text(text, encoding="utf-8")
        asked = subprocess.run(["sbatch", "--test-only", path], capture_output=True, text=True, check=False)
    if asked.returncode:
        said = " ".join(asked.stderr.split())
        remedy = "Correct the file of jobs; `tandem slurm-script FILE` prints what SLURM is given."
        raise UsageError("E_SLURM", f"SLURM does not take the job: {said}.", remedy)


def _jobqueue() -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        what = "Expected dask-jobqueue, to submit jobs to SLURM, got no such package."
        raise UsageError("E_EXTRA", what, "Install the extra: pip install 'tandem-imaging[slurm]'.") from error
    return dask_jobqueue
