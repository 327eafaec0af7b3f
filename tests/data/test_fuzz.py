from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parents[2] / "benchmarks"


def test_readers_end_damaged_files_in_a_result_or_in_one_line() -> None:
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import fuzz; "
        "print(json.dumps({kind: list(fuzz.ends_of(kind, 0, range(10))) for kind in fuzz.KINDS}))"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(FUZZER)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    ends = json.loads(ended.stdout)
    assert {len(of_kind) for of_kind in ends.values()} == {10}
    assert {end for of_kind in ends.values() for end in of_kind} == {"result", "one line"}
