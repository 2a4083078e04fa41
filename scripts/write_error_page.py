"""Write docs/reference/errors.md from the table of codes in pipeline/errors.py."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import NOTES, REMEDIES

HEAD = """# Error codes

Every error has a stable code, one sentence about the case at hand, and a remedy. The codes stand in `series.csv`,
`cases.csv`, `record.json` and the reports. A command exits with 0 when all is done, 1 when some cases failed or were
quarantined, 2 when it could not start, or met a defect of Tandem (`E_INTERNAL`; `--verbose` shows where it is), and
130 or 143 when it was stopped by Ctrl-C or SIGTERM.

| code | what to do |
|---|---|
"""

if __name__ == "__main__":
    rows = "".join(f"| `{code}` | {remedy} |\n" for code, remedy in REMEDIES.items())
    notes = "".join(f"| `{code}` | {meaning} |\n" for code, meaning in NOTES.items())
    rows += f"\n## Notes\n\nWhat was seen and dealt with; the result stands.\n\n| code | meaning |\n|---|---|\n{notes}"
    (Path(__file__).parent.parent / "docs" / "reference" / "errors.md").write_text(HEAD + rows)
