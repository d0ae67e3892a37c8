"""Extracts the texts of the source as templates for the catalogue of translations.

The f-string `f"{path}: is missing."` is "{0}: is missing.", `count(n, "clip")` is
"{0:clip}", a choice of grammar such as is or are is "⟨is|are⟩", and any other choice gives a
template each. A name that a function assigns to a text once is replaced by that text.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, nodes

from musicgen_lora.commands.table import COMMANDS
from musicgen_lora.language import catalogue
from musicgen_lora.language.flags import field_docs

MOST_VARIANTS = 8
"""Most variants of a template by its choices; beyond that, a choice becomes a placeholder."""
OF_GRAMMAR = ("is|are", "it|them", "its|their", "it|they", "was|were", "has|have", "a|", "s|", "|s")
_TOLD = {
    # `Revision._tell` puts these in.
    "{n_files}": ("file", ""),
    "{files}": ("file", "⟨ is| are⟩"),
    "{clips}": ("clip", "⟨ is| are⟩"),
    "{their}": (None, "⟨its|their⟩"),
    "{they}": (None, "⟨it|they⟩"),
    "{them}": (None, "⟨it|them⟩"),
    "{were}": (None, "⟨was|were⟩"),
    "{have}": (None, "⟨has|have⟩"),
}


@dataclass(frozen=True)
class Slot:
    """A placeholder; with a noun if it is for a counted number."""

    noun: str = ""


Parts = tuple["str | Slot", ...]
"""A template's text and placeholders."""


def template(parts: Parts) -> str:
    """The template as the catalogue writes it; adjacent placeholders become one."""
    text, n_slots, last_was_slot = "", 0, False
    for part in parts:
        if isinstance(part, Slot):
            if last_was_slot:
                # Nobody can tell where one ends.
                text = re.sub(r":[^{}]*\}$", "}", text)
                continue
            text += f"{{{n_slots}:{part.noun}}}" if part.noun else f"{{{n_slots}}}"
            n_slots, last_was_slot = n_slots + 1, True
        elif part:
            text, last_was_slot = text + part, False
    return text


@dataclass
class _Module:
    """The texts of one module."""

    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if isinstance(target, ast.Name) and _is_text(statement.value):
                    self.constants[target.id] = statement.value

    def texts(self) -> Iterator[tuple[int, str]]:
        """Line and template of each."""
        docstrings, functions = _docstrings(self.tree), _functions(self.tree)
        locals_of: dict[int, dict[str, ast.expr | None]] = {}
        for function in functions:
            locals_of |= dict.fromkeys(map(id, function.nodes), function.known)
        nodes = [
            (node, {**self.constants, **locals_of.get(id(node), {})})
            for node in self._outermost(self.tree, docstrings)
        ]
        whole = {id(node): self._expand(node, known) for node, known in nodes}
        # A text that is only a part of others is in their templates.
        in_others = _Parts(functions)
        for node, known in nodes:
            if whole[id(node)] is None:
                in_others.keep(node, known)
        for node, _ in nodes:
            if not in_others.is_part(node):
                for parts in whole[id(node)] or self._expand(node, {}) or []:
                    yield node.lineno, template(parts)

    def _outermost(self, node: ast.AST, docstrings: set[int]) -> Iterator[ast.expr]:
        for child in ast.iter_child_nodes(node):
            if id(child) in docstrings:
                continue
            if isinstance(child, ast.expr) and _is_text(child):
                yield child
                yield from self._inside(child, docstrings)
            else:
                yield from self._outermost(child, docstrings)

    def _inside(self, text: ast.expr, docstrings: set[int]) -> Iterator[ast.expr]:
        """Texts in the expressions of a text's placeholders."""
        for child in ast.iter_child_nodes(text):
            if isinstance(child, ast.FormattedValue):
                value = child.value
                if not _is_text(value) and not _counted(value):
                    yield from self._outermost(value, docstrings)
                elif _is_text(value):
                    yield from self._inside(value, docstrings)
            elif isinstance(child, ast.expr) and _is_text(child):
                yield from self._inside(child, docstrings)
            elif isinstance(child, ast.expr):
                yield from self._outermost(child, docstrings)

    def _expand(self, node: ast.expr, known: dict[str, ast.expr | None]) -> list[Parts] | None:
        """Templates of a text; None if there are too many."""
        found = self._variants(node, known)
        return found if found is not None and len(found) <= MOST_VARIANTS else None

    def _variants(
        self, node: ast.expr, known: dict[str, ast.expr | None], depth: int = 0
    ) -> list[Parts] | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [_told(node.value)]
        if isinstance(node, ast.JoinedStr):
            return self._product([self._variants(v, known, depth) for v in node.values])
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is None and node.conversion == -1:
                return self._value(node.value, known, depth)
            return [(Slot(),)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._product([self._value(s, known, depth) for s in (node.left, node.right)])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return [("",), *(self._value(node.left, known, depth) or [])]
        if isinstance(node, ast.IfExp):
            one, other = (self._value(n, known, depth) for n in (node.body, node.orelse))
            merged = _merged(one, other)
            return merged or [*(one or []), *(other or [])]
        return [(Slot(),)]

    def _value(
        self, value: ast.expr, known: dict[str, ast.expr | None], depth: int
    ) -> list[Parts] | None:
        if counted := _counted(value):
            return [(Slot(noun),) for noun in counted]
        if isinstance(value, ast.Name) and depth < 4:
            meant = known.get(value.id)
            if meant is not None:
                return self._variants(meant, known, depth + 1)
        if _is_text(value):
            return self._variants(value, known, depth)
        return [(Slot(),)]

    def _product(self, parts: list[list[Parts] | None]) -> list[Parts] | None:
        if any(p is None for p in parts):
            return None
        n = 1
        for p in parts:
            n *= len(p or [])
        if n > MOST_VARIANTS:
            return None
        return [
            tuple(itertools.chain(*chosen))
            for chosen in itertools.product(*(p or [] for p in parts))
        ]


@dataclass(frozen=True)
class _Function:
    """All nodes of a function, and the names it assigns, see `_locals`."""

    nodes: list[ast.AST]
    known: dict[str, ast.expr | None]


def _functions(tree: ast.Module) -> list[_Function]:
    """The functions of a module, in the order of their lines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = sorted((n for n in ast.walk(tree) if isinstance(n, kinds)), key=lambda n: n.lineno)
    nodes = [[*ast.walk(function)] for function in found]
    return [_Function(own, _locals(own)) for own in nodes]


class _Parts:
    """Texts assigned to a name that only other texts of the same function use.

    Args:
        functions: of the module.
    """

    def __init__(self, functions: list[_Function]) -> None:
        self._parts: dict[int, ast.expr] = {}
        for function in functions:
            known = {n: v for n, v in function.known.items() if v is not None}
            inside = {
                id(part)
                for node in function.nodes
                for part in _operands(node)
                if isinstance(part, ast.Name)
            }
            for node in function.nodes:
                if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
                    continue
                if id(node) not in inside:
                    known.pop(node.id, None)
            self._parts |= {id(value): value for value in known.values()}

    def keep(self, node: ast.expr, known: dict[str, ast.expr | None]) -> None:
        """Keeps the parts of a text that has too many variants to expand."""
        for part in ast.walk(node):
            value = known.get(part.id) if isinstance(part, ast.Name) else None
            if value is not None and self._parts.pop(id(value), None) is not None:
                self.keep(value, known)

    def is_part(self, node: ast.expr) -> bool:
        return id(node) in self._parts


def _operands(node: ast.AST) -> list[ast.expr]:
    """What a text is composed of."""
    if isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion == -1:
        return [node.value]
    if isinstance(node, ast.BinOp) and _is_text(node):
        return [node.left, node.right]
    if isinstance(node, ast.IfExp) and _is_text(node):
        return [node.body, node.orelse]
    return []


def _docstrings(tree: ast.AST) -> set[int]:
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                found.add(id(statement.value))
    return found


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is composed of text literals in it."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Add):
            return _is_text(node.left) or _is_text(node.right)
        return isinstance(node.op, ast.Mult) and _is_text(node.left)
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    return isinstance(node, ast.JoinedStr)


def _counted(value: ast.expr) -> list[str]:
    """The nouns of `count(n, noun)`."""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name)):
        return []
    if value.func.id != "count" or len(value.args) != 2:
        return []
    noun = value.args[1]
    choices = [noun.body, noun.orelse] if isinstance(noun, ast.IfExp) else [noun]
    return [c.value for c in choices if isinstance(c, ast.Constant) and isinstance(c.value, str)]


def _locals(function: list[ast.AST]) -> dict[str, ast.expr | None]:
    """Names that a function with these nodes sets once, to a text; None for others that it sets."""
    known: dict[str, ast.expr | None] = {}
    for node in function:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known[node.id] = None if node.id in known else ast.Constant(0)
        elif isinstance(node, ast.arg):
            known[node.arg] = None
    for node in function:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name) and known.get(target.id) and _is_text(node.value):
                known[target.id] = node.value
    return {
        name: None if isinstance(value, ast.Constant) and value.value == 0 else value
        for name, value in known.items()
    }


def _merged(one: list[Parts] | None, other: list[Parts] | None) -> list[Parts] | None:
    """Two forms of a word, as one choice."""
    if not one or not other or len(one) != 1 or len(other) != 1:
        return None
    a, b = template(one[0]), template(other[0])
    if f"{a}|{b}" in OF_GRAMMAR or (a.isalpha() and b == f"{a}s"):
        return [(f"⟨{a}|{b}⟩",)]
    return None


def _told(text: str) -> Parts:
    """A text with what `Revision._tell` puts in."""
    parts: list[str | Slot] = []
    for piece in re.split(f"({'|'.join(map(re.escape, _TOLD))})", text):
        noun, words = _TOLD.get(piece, (None, ""))
        parts += ([Slot(noun)] if noun else []) + [words] if piece in _TOLD else [piece]
    return tuple(parts)


def of_python(path: Path) -> dict[str, int]:
    """Templates of a module, with the first line of each."""
    found: dict[str, int] = {}
    for line, text in _Module(ast.parse(path.read_text(encoding="utf-8"))).texts():
        found.setdefault(text, line)
    return found


def of_flags(path: Path) -> list[str]:
    """The docstrings of a module's settings and their fields, which help shows."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Settings"):
            continue
        found += field_docs(node).values()
        if node.name.removesuffix("Settings").lower() in COMMANDS:
            found.append(" ".join((ast.get_docstring(node) or "").split()))
    return found


def of_page(path: Path) -> dict[str, int]:
    """The texts of a page: what jinja marks with `trans`, passes to `said`, and counts."""
    environment = Environment(extensions=["jinja2.ext.i18n"], trim_blocks=True)
    source = path.read_text(encoding="utf-8")
    extracted = environment.extract_translations  # pyright: ignore[reportAttributeAccessIssue]
    found = {catalogue.from_gettext(str(message)): line for line, _, message in extracted(source)}
    page = environment.parse(source)
    for said in page.find_all(nodes.Filter):
        if said.name == "said" and isinstance(said.node, nodes.Const):
            found[said.node.value] = said.lineno
    for call in page.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "count":
            for noun in (call.args[1], *call.args[1].find_all(nodes.Const)):
                if isinstance(noun, nodes.Const):
                    found[f"{{0:{noun.value}}}"] = call.lineno
    return found
