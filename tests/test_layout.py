"""The house rules that a machine can check: imports point one way, and README speaks the truth."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "facellava"
TOOLS = ("data_builders", "train", "serve", "eval")
FRONT_DOOR = "facellava/cli/"
"""Alone may import the tools, and only inside functions."""

HOMES = {"vllm": "serve/vllm_", "gradio": "serve/chat", "dlib": "facellava/faces/"}
"""Packages that only one place may import."""

ANSWERS_IN_A_BLINK = ("facellava", "facellava.environment", "facellava.doctor", "facellava.cli")
"""Modules that `facellava --help` loads; they may load nothing heavy."""

HEAVY = {"torch", "transformers", "vllm", "gradio", "dlib", "cv2", "scipy", "sklearn"}

README = "\n".join((ROOT / name).read_text() for name in ("README.md", "train/README.md"))
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in (LIBRARY, *TOOLS)
    for path in (ROOT / package).rglob("*.py")
)
BENCHMARKS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/*.py"))
SCRIPTS = [*SOURCES, *BENCHMARKS, "setup_env.py"]
# Parsed before any test runs: Python 3.11 counts a parse's depth for all threads together, so one
# that some server's thread interrupts ends in a SystemError (python/cpython issue 106905).
TREES = {source: ast.parse((ROOT / source).read_text()) for source in SCRIPTS}


def imports_of(source: str) -> Iterator[tuple[str, bool]]:
    """Top-level packages that a file imports, and whether at import time.

    Not so in a function, nor where only the type checker looks.
    """
    later = {
        id(inner)
        for outer in ast.walk(TREES[source])
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for inner in ast.walk(outer)
    }
    for node in ast.walk(TREES[source]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays inside its package.
            names = [node.module or ""] if node.level == 0 else [source.split("/")[0]]
        else:
            continue
        for name in names:
            yield name.split(".")[0], id(node) not in later


def test_imports_point_one_way() -> None:
    wrong = [
        f"{source} imports {name}"
        for source in SOURCES
        for name, at_import in imports_of(source)
        if name in TOOLS and name != source.split("/")[0]
        if at_import or not source.startswith(FRONT_DOOR)
    ]
    assert wrong == []


def test_some_packages_have_one_home() -> None:
    strayed = [
        f"{source} imports {name}, only {HOMES[name]} may"
        for source in SOURCES
        for name, _ in imports_of(source)
        if name in HOMES and not source.startswith(HOMES[name])
    ]
    assert strayed == []


@pytest.mark.parametrize("module", ANSWERS_IN_A_BLINK)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert HEAVY & set(loaded.stdout.split()) == set()


def test_files_are_short_and_named_for_what_they_hold() -> None:
    vague = {"utils.py", "common.py", "helpers.py", "misc.py"}
    assert [source for source in SCRIPTS if Path(source).name in vague] == []
    lines = {source: len((ROOT / source).read_text().splitlines()) for source in SCRIPTS}
    assert {source: count for source, count in lines.items() if count > 400} == {}


def test_no_file_has_a_bad_habit() -> None:
    habits = [habit for source in SCRIPTS for habit in bad_habits(source)]
    assert habits == []


def bad_habits(source: str) -> Iterator[str]:
    """Unfinished marks, bare excepts, unpickling, foreign code, printing from the library."""
    text = (ROOT / source).read_text()
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"\bTODO\b|\bFIXME\b|\bHAS_[A-Z]", line):
            yield f"{source}:{number}: {line.strip()}"
    for node in ast.walk(TREES[source]):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{source}:{node.lineno}: bare except"
        if isinstance(node, ast.Call):
            where = f"{source}:{node.lineno}: {dotted(node.func)}"
            if dotted(node.func).startswith("pickle.") or dotted(node.func) == "torch.load":
                yield f"{where} unpickles"
            for option in node.keywords:
                risky = option.arg in {"trust_remote_code", "allow_pickle"}
                if risky and ast.unparse(option.value) != "False":
                    yield f"{where} sets {option.arg}"
            if dotted(node.func) == "print" and source != "setup_env.py":
                yield f"{where}: the library logs"


def dotted(node: ast.expr) -> str:
    """``a.b.c`` as written; what stands before an unnamed part is left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_file_names_this_folder() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    own_path = f"{ROOT}/".encode()
    naming = [name for name in listed.stdout.splitlines() if own_path in _bytes_of(ROOT / name)]
    assert naming == []


def _bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_every_tool_is_a_typed_package() -> None:
    for package in (LIBRARY, *TOOLS):
        assert (ROOT / package / "__init__.py").is_file()
        assert (ROOT / package / "py.typed").is_file()


def readme_code() -> list[str]:
    """Inline code of README, and the command lines in its shell blocks.

    Where a block shows a prompt, the lines without one are output.
    """
    fenced = r"```(\w*)\n(.*?)```"
    code = re.findall(r"`([^`\n]+)`", re.sub(fenced, "", README, flags=re.DOTALL))
    for language, block in re.findall(fenced, README, flags=re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        if language in {"bash", "sh", "shell", "console"}:
            prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            code += prompted or lines
    return code


def readme_paths() -> list[str]:
    """Files and folders of this checkout that README links to, shows or names in code."""
    linked = re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", README)
    shown = {path for pair in linked for path in pair if path and ":" not in path}
    tops = {path.name for path in ROOT.iterdir()} - {".venv"}
    named = {code for code in readme_code() if re.fullmatch(r"[\w.-]+/[\w./-]*", code)}
    return sorted(shown | {path for path in named if path.split("/")[0] in tops})


def readme_commands(program: str) -> list[list[str]]:
    """The arguments of every command line in README that calls ``program``."""
    commands = []
    for line in readme_code():
        # Settings of the shell may stand before: NAME=value facellava ...
        words = re.sub(r"^(\w+=\S* )+", "", line.strip())
        if re.match(rf"(\S*/)?{program}(\s|$)", words):
            commands.append(shlex.split(words, comments=True)[1:])
    return commands


def test_readme_has_something_to_check() -> None:
    assert readme_paths()
    assert readme_commands("facellava")


def test_readme_paths_exist() -> None:
    assert [path for path in readme_paths() if not (ROOT / path).exists()] == []


def test_readme_commands_exist() -> None:
    from facellava.cli import app

    front_door = typer.main.get_command(app)
    unknown = [words for words in readme_commands("facellava") if not can_parse(front_door, words)]
    assert unknown == []


def can_parse(command: Any, words: list[str]) -> bool:
    """Whether the verbs and option names of ``words`` are ones that the command line has."""
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands.get(rest.pop(0))
        if command is None:
            return False
    known = {"--help"}
    for parameter in command.params:
        known.update(parameter.opts, parameter.secondary_opts)
    options = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    # `serve` hands what it does not know on to vLLM.
    return options <= known or command.context_settings.get("ignore_unknown_options", False)


def test_readme_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {word for words in readme_commands("make") for word in words if word.isalpha()}
    assert {"setup", "demo"} <= named
    assert named <= targets
