"""Jobs of SLURM do the work of a run: what is submitted, what is refused, a whole run by a stand-in and by SLURM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.run.plan import Plan
from pipeline.run.workers import workers
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.resources import load_slurm
from pipeline.spec.spec import Role, Spec, save_spec
from pipeline.store import records
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import call, command, environment

#: Every key that says what is submitted.
FULL = """
queue: normal
account: lab
jobs: 2
cores: 4
memory_gb: 12
walltime: "04:00:00"
gpus: 1
python: /opt/tandem/bin/python
env: ["module load cuda"]
job_extra: ["--exclusive"]
"""
SMALL = 'jobs: 2\ncores: 1\nmemory_gb: 3\nwalltime: "00:05:00"\n'
#: In the place of SLURM's commands: a job is a process of this machine, in a session of its own.
SBATCH = """#!/bin/bash
echo "$@" >> "$(dirname "$0")/called.txt"
[ "$1" = --test-only ] && exit 0
cp "$1" "$(dirname "$0")/job.sh"
cp "$1" "$1.kept"
setsid bash "$1.kept" </dev/null >/dev/null 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = '#!/bin/bash\necho "scancel $1" >> "$(dirname "$0")/called.txt"\npkill -9 -s "$1"\n'


def file_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "jobs.yaml"
    path.write_text(text)
    return path


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_the_script_is_printed_and_nothing_is_submitted(tmp_path: Path) -> None:
    done = call("slurm-script", file_of(tmp_path, FULL))
    assert done.code == 0 and done.out == (Path(__file__).parent / "slurm_job.sh").read_text()


def test_what_is_left_out_is_left_to_slurm(tmp_path: Path) -> None:
    lines = call("slurm-script", file_of(tmp_path, SMALL)).out.splitlines()
    assert not [line for line in lines if line.startswith(("#SBATCH -p", "#SBATCH -A", "#SBATCH --gres"))]
    assert lines[-1].startswith(f"{sys.executable} -m distributed.cli.dask_worker") and "GPU" not in lines[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FULL.replace("queue", "que"), "line 2: que: unknown key; did you mean `queue`"),
        (FULL.replace('"04:00:00"', "4:00:00"), 'walltime: .*expected a time in quotes, such as "04:00:00"'),
        (FULL.replace('"04:00:00"', '"four hours"'), "expected a time in quotes"),
        (FULL.replace("jobs: 2", "jobs: 0"), "jobs: .*greater than or equal to 1"),
        ("jobs: 1", "walltime"),
    ],
)
def test_a_typo_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        load_slurm(file_of(tmp_path, text))
    assert refused.value.code == "E_RESOURCES"


def test_who_works_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected --slurm alone"):
        Plan(tmp_path, tmp_path / "out", jobs=2, slurm=tmp_path / "jobs.yaml")


def test_a_machine_without_slurm_and_a_job_that_it_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(tmp_path, tmp_path / "out", slurm=file_of(tmp_path, SMALL))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UsageError, match="E_SLURM: Expected the command `sbatch`"), workers(plan, ("ingest",)):
        pass
    program(tmp_path / "bin" / "sbatch", "#!/bin/sh\necho 'sbatch: error: invalid partition: normal' >&2\nexit 1\n")
    with pytest.raises(UsageError, match=r"E_SLURM: .* invalid partition: normal"), workers(plan, ("ingest",)):
        pass


def has_slurm() -> bool:
    return shutil.which("sinfo") is not None and b"idle" in subprocess.run(["sinfo"], capture_output=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("slurm", ["stand-in", "real"])
def test_a_run_by_jobs(slurm: str, tmp_path: Path) -> None:
    """Paths are relative: the jobs start where the command does, and are told whole ones all the same."""
    if slurm == "real" and not has_slurm():
        pytest.skip("SLURM is not there")
    for patient in ("A1", "B1", "C1"):
        header = SeriesHeader(seed=patient, patient_id=patient)
        write_series(position_phantom(shape=(12, 10, 6)), tmp_path / "in" / patient, header)
    save_spec(Spec(name="x", description="x", roles={"ct": Role(modality="CT")}), tmp_path / "spec")
    (tmp_path / "jobs.yaml").write_text(f"{SMALL}logs: logs\nwait_min: 2\n")
    env = environment(tmp_path / "home") | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    if slurm == "stand-in":
        program(tmp_path / "bin" / "sbatch", SBATCH)
        program(tmp_path / "bin" / "scancel", SCANCEL)
        env["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{env['PATH']}"
    words = ("run", "in", "--spec", "spec/spec.yaml", "--out", "out", "--stages", "ingest", "--slurm", "jobs.yaml")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run(command(*words), cwd=tmp_path, env=env, check=False, timeout=180, **pipes)
    assert done.returncode == 0 and "ingest: 3 done" in done.stdout, done.stdout + done.stderr
    assert [made[0].status for made in records.of_run(tmp_path / "out").values()] == 3 * ["done"]
    if slurm == "stand-in":
        called = (tmp_path / "bin" / "called.txt").read_text().split("\n")
        assert called[0].startswith("--test-only") and sum(line.startswith("scancel") for line in called) == 2
        job = (tmp_path / "bin" / "job.sh").read_text()
        assert "tls://" in job and f"--tls-key {tmp_path / 'out'}/.dask-jobqueue" in job
        assert not list((tmp_path / "out").glob(".dask-jobqueue*"))  # the certificate of the run, and its key
    else:
        assert subprocess.run(["squeue", "-h", "-t", "PD,R"], capture_output=True, check=True).stdout == b""
