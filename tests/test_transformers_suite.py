"""transformers' own common tests: what fails is what `docs/transformers.md` says, and why."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| `(test_\w+)` \| ", re.MULTILINE)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source of the installed version, with its tests, which the installed package lacks."""
    folder = tmp_path_factory.mktemp("sdist")
    wanted = ["download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", *wanted, f"transformers=={transformers.__version__}"]
    loaded = subprocess.run(command, capture_output=True, text=True)
    if loaded.returncode:
        pytest.skip(f"the source of transformers cannot be had: {loaded.stderr.strip().splitlines()[-1]}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.mark.slow
def test_what_fails_of_transformers_common_tests_is_what_the_page_says(sdist, tmp_path):
    shutil.copy(ROOT / "tests" / "transformers_suite.py", tmp_path)
    (tmp_path / "empty.ini").write_text("[pytest]\n")
    path = os.pathsep.join([str(sdist), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "transformers_suite.py", "-q", "-c", "empty.ini", "--rootdir", "."]
    command += ["-p", "no:cacheprovider", "--disable-warnings", "--junitxml", "report.xml"]
    run = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert (tmp_path / "report.xml").is_file(), run.stdout + run.stderr
    cases = ElementTree.parse(tmp_path / "report.xml").getroot().findall(".//testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None}
    passed = [case for case in cases if len(case) == 0]
    assert len(passed) > 300, run.stdout  # it ran, over all classes
    page = (ROOT / "docs" / "transformers.md").read_text(encoding="utf-8")
    assert failed == set(ROW.findall(page)), run.stdout
