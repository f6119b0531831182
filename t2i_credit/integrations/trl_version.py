"""The range of trl that the text trainer is tested with. Reads the installed version without importing trl."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from ..errors import UserError

TESTED_TRL = ">=1.16,<1.17"  # as in pyproject.toml, extra text


def require_tested_trl() -> None:
    """Refuses a missing trl and one that was not tested: the trainer overrides methods that no promise covers.

    Raises:
        UserError: one line.
    """
    mend = "pip install 't2i-credit[text]'"
    try:
        found = version("trl")
    except PackageNotFoundError:
        raise UserError(
            f"trl is not installed; training on text needs trl {TESTED_TRL}: {mend}"
        ) from None
    if found not in SpecifierSet(TESTED_TRL):
        raise UserError(
            f"trl {found} is installed; training on text is tested with trl {TESTED_TRL}: {mend}"
        )
