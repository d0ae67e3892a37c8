"""Folders, files, functions and parameters stay as small as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "tests", "benchmarks", "pretraining", "tools", "finetune")
FILES_OF_FOLDER, LINES_OF_FILE, LINES_OF_FUNCTION, PARAMETERS = 19, 400, 60, 7

NOT_OURS = {"_attend"}
"""Functions whose parameters are a library's: transformers calls what attends with eight."""


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def n_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    extra = (given.vararg is not None) + (given.kwarg is not None)
    return len(names) + extra - (names[:1] in (["self"], ["cls"]))


def test_no_folder_of_code_holds_twenty_files() -> None:
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in sources(*CODE))
    assert {name: n for name, n in counts.items() if n > FILES_OF_FOLDER} == {}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in sources(*CODE)
    }
    assert {name: n for name, n in lengths.items() if n > LINES_OF_FILE} == {}


def test_functions_fit_on_a_screen_and_take_few_values() -> None:
    too_long, too_many = {}, {}
    for path in sources("src"):
        for function in functions(path):
            place = f"{path.relative_to(ROOT).as_posix()}:{function.lineno} {function.name}"
            n_lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if n_lines > LINES_OF_FUNCTION:
                too_long[place] = n_lines
            if n_parameters(function) > PARAMETERS and function.name not in NOT_OURS:
                too_many[place] = n_parameters(function)
    assert (too_long, too_many) == ({}, {})


def test_what_counts_too_much_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text(
        "class A:\n    def f(self, a, b, *c, d, **e):\n        pass\n\nasync def g():\n    pass\n"
    )
    assert [(one.name, n_parameters(one)) for one in functions(path)] == [("g", 0), ("f", 5)]
