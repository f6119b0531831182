"""The wheel and the installed package: what is in them and what their import costs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import ROOT

import t2i_credit

# Folder of the repository -> folder of the wheel.
FOLDERS = {
    "t2i_credit": "t2i_credit",
    "models": "t2i_credit/models",
    "rewards": "t2i_credit/rewards",
    "configs": "t2i_credit/configs",
    "app": "t2i_credit/app",
    "t2i_credit/text/integrations": "t2i_credit/integrations",
}


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel built from a copy, so that nothing is left behind in the tree."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"building a wheel without a network needs {tool} in the environment")
    tmp = tmp_path_factory.mktemp("wheel")
    source = tmp / "source"
    ignore = shutil.ignore_patterns("__pycache__", ".DS_Store")
    for folder in (name for name in FOLDERS if "/" not in name):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def shipped(folder: str, pattern: str) -> set[str]:
    """Where the wheel should hold the files of a folder of the repository that fit a pattern."""
    elsewhere = [ROOT / name for name in FOLDERS if name.startswith(f"{folder}/")]
    found = [
        path
        for path in (ROOT / folder).rglob(pattern)
        if path.is_file() and not any(path.is_relative_to(place) for place in elsewhere)
    ]
    return {f"{FOLDERS[folder]}/{path.relative_to(ROOT / folder).as_posix()}" for path in found}


def run_elsewhere(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_only_top_level_name_of_the_wheel_is_t2i_credit(wheel_files: set[str]) -> None:
    top = {PurePosixPath(name).parts[0] for name in wheel_files}
    assert {name for name in top if not name.endswith(".dist-info")} == {"t2i_credit"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_of_a_mapped_folder_is_in_the_wheel(
    folder: str, wheel_files: set[str]
) -> None:
    modules = shipped(folder, "*.py")
    assert modules
    assert modules <= wheel_files


def test_every_recipe_page_and_embedded_file_is_in_the_wheel(wheel_files: set[str]) -> None:
    files = shipped("models", "*") | shipped("rewards", "*")
    embedded = {name for name in files if "/embedded/" in name}
    embedded = {name for name in embedded if "/." not in name and "__pycache__" not in name}
    page = {f"t2i_credit/measure/evaluation/report.{kind}" for kind in ("html", "css", "js")}
    assert shipped("configs", "*.yaml") | embedded | page | {"t2i_credit/py.typed"} <= wheel_files
    assert shipped("app", "static/*") and shipped("app", "static/*") <= wheel_files


def test_the_wheel_holds_no_tests(wheel_files: set[str]) -> None:
    names = [PurePosixPath(name) for name in wheel_files]
    assert not [n for n in names if n.name.startswith(("test_", "conftest")) or "tests" in n.parts]


def test_mapped_folders_are_imported_from_any_directory(tmp_path: Path) -> None:
    code = (
        "import t2i_credit.models, t2i_credit.rewards, t2i_credit.app\n"
        "from importlib.resources import files\n"
        "print((files('t2i_credit.configs') / '__init__.py').is_file())"
    )
    assert run_elsewhere(code, tmp_path) == "True"


def test_importing_the_package_loads_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys, t2i_credit; dir(t2i_credit)\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'pydantic'} & set(sys.modules)))"
    )
    assert run_elsewhere(code, tmp_path) == "[]"


@pytest.mark.parametrize("name", t2i_credit.__all__)
def test_every_public_name_can_be_reached(name: str) -> None:
    assert getattr(t2i_credit, name) is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = t2i_credit.nothing


def test_a_test_cannot_reach_another_machine() -> None:
    with pytest.raises(RuntimeError, match="tests use no network"):
        socket.create_connection(("huggingface.co", 443), timeout=1)
    with socket.socket() as remote, pytest.raises(RuntimeError, match="tests use no network"):
        remote.connect(("192.0.2.1", 80))  # an address reserved for documentation


def test_a_test_can_reach_a_server_of_its_own() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_what_is_installed_is_what_the_lock_names() -> None:
    if Path(sys.prefix) != ROOT / ".venv" or (ROOT / ".venv" / ".torch-kept").exists():
        pytest.skip("`make install` did not make this environment from requirements.lock alone")
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    named = [Requirement(line.strip()) for line in lines if line and not line.startswith("#")]
    wanted = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in named
        if one.marker is None or one.marker.evaluate()
    }
    found = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
    assert {
        name: found.get(name) for name in wanted
    } == wanted  # what else a user has put there stays


def test_the_lock_names_no_address_and_no_hash_and_covers_every_requirement() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--" not in text and "sha256" not in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    for line in asked:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        found = re.findall(rf"^{re.escape(name)}==(\S+)", text, re.MULTILINE)
        assert found and all(wanted.specifier.contains(version) for version in found), line
