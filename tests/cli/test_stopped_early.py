"""A command that is stopped while it is still being imported."""

import subprocess
import sys

CODE = """
import sys
class Stopped:
    def find_spec(self, name, *rest):
        if name == "t2i_credit.cli.commands":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopped())
from t2i_credit.cli import main
main()
"""


def test_it_is_one_line():
    ended = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130
    assert ended.stderr == "stopped\n"
