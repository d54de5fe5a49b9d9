"""One module as tokens: its top-level statements, what they use, and what the module binds and does.

Tokens leave out what does not decide a result: comments, docstrings, formatting, annotations of functions and of their
variables. The shape of `ast` differs between Python versions in fields that are empty for code that all of them read:
only fields that are not empty are written, so that Python 3.10 to 3.13 agree.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NEVER_HASHED = frozenset({"ctx", "type_comment", "kind", "returns"})


@dataclass(frozen=True)
class Imported:
    """What an import binds a name to: a module, or an attribute of one. ``optional``: the code expects its absence."""

    module: str
    attribute: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Use:
    """A name of the module, an import, or a ``"module:Name"`` string that code uses, with the attributes it takes."""

    source: str | Imported
    attributes: tuple[str, ...] = ()
    in_string: bool = False


Token = str | Use


@dataclass(frozen=True)
class Statement:
    """A top-level statement: its tokens, whether it is bound to one plain name, and the modules imported inside it.

    ``name`` is empty where it does not matter (functions and plain assignments go by many names).
    """

    tokens: tuple[Token, ...]
    plain: bool
    imports: tuple[Imported, ...] = ()
    bases: tuple[Use, ...] = ()
    decorators: tuple[Use, ...] = ()
    marks_subclasses: bool = False


@dataclass
class Module:
    """What a module binds, and what it does when it is imported."""

    name: str
    statements: list[Statement] = field(default_factory=list)
    bindings: dict[str, list[Imported | int]] = field(default_factory=dict)
    effects: list[int] = field(default_factory=list)
    imports: list[Imported] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)
    opaque: bool = False


def read_module(name: str, path: Path, is_package: bool) -> Module:
    """Return the analysis of a module's source file (cached until the file changes)."""
    stat = path.stat()
    return _read_module(name, path, is_package, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4096)
def _read_module(name: str, path: Path, is_package: bool, mtime_ns: int, size: int) -> Module:
    source = path.read_bytes()
    if path.suffix != ".py":
        return _opaque(name, source)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the run will fail with the real message
        return _opaque(name, source)
    return _Reader(name, is_package).read(tree)


def _opaque(name: str, content: bytes) -> Module:
    """Return a module of which only the content as a whole is known."""
    whole = Statement(("opaque", hashlib.sha256(content).hexdigest()), plain=False)
    return Module(name, [whole], effects=[0], opaque=True)


class _Scope:
    """The names that a function, class or comprehension binds itself."""

    def __init__(self, parent: _Scope | None, is_class: bool = False) -> None:
        self.parent = parent
        self.is_class = is_class
        self.bound: set[str] = set()
        self.imports: dict[str, Imported] = {}

    def find(self, name: str) -> Imported | bool:
        """Return True for a local name, the import behind it, or False if it is the module's."""
        scope: _Scope | None = self
        while scope is not None:
            if scope is self or not scope.is_class:
                if name in scope.bound:
                    return True
                if name in scope.imports:
                    return scope.imports[name]
            scope = scope.parent
        return False


class _Reader:
    """Turns one syntax tree into statements, bindings and effects."""

    def __init__(self, name: str, is_package: bool) -> None:
        self.module = Module(name)
        self.parents = name.split(".") if is_package else name.split(".")[:-1]

    def read(self, tree: ast.Module) -> Module:
        for node in tree.body:
            self._top_level(node)
        return self.module

    # Statements at the top level

    def _top_level(self, node: ast.stmt) -> None:
        module = self.module
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._bind_imports(node)
        elif _is_idle(node):
            return
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for only_for_types in node.body:
                if isinstance(only_for_types, ast.Import | ast.ImportFrom):
                    self._bind_imports(only_for_types, executed=False)
            for statement in node.orelse:
                self._top_level(statement)
        elif isinstance(node, ast.If) and _is_main_guard(node.test):
            return
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            self._bind([node.name], self._statement(node, plain=True))
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and (names := _plain_targets(node)):
            if names == ["__all__"]:
                return
            self._bind(names, self._statement(node, plain=len(names) == 1))
        else:
            index = self._statement(node, plain=False)
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    self._bind_imports(inner, optional=isinstance(node, ast.Try))
            self._bind(sorted(_bound_names([node])), index)
            if not _only_binds(node):
                module.effects.append(index)

    def _statement(self, node: ast.stmt, plain: bool) -> int:
        tokens: list[Token] = []
        found: list[Imported] = []
        encoder = _Encoder(self, tokens, found)
        encoder.top_level(node)
        bases: tuple[Use, ...] = ()
        decorators: tuple[Use, ...] = ()
        marks = False
        if isinstance(node, ast.ClassDef):
            bases = tuple(_uses_of(node.bases, self))
            marks = any(isinstance(i, _FUNCTIONS) and i.name == "__init_subclass__" for i in node.body)
            marks = marks or any(keyword.arg == "metaclass" for keyword in node.keywords)
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            decorators = tuple(_uses_of(node.decorator_list, self))
        self.module.statements.append(Statement(tuple(tokens), plain, tuple(found), bases, decorators, marks))
        return len(self.module.statements) - 1

    def _bind(self, names: Iterable[str], target: Imported | int) -> None:
        for name in names:
            self.module.bindings.setdefault(name, []).append(target)

    def _bind_imports(self, node: ast.Import | ast.ImportFrom, executed: bool = True, optional: bool = False) -> None:
        for name, target in self.imported(node, optional):
            if name == "*":
                self.module.stars.append(target.module)
            else:
                self._bind([name], target)
            if executed:
                self.module.imports.append(target)

    def imported(self, node: ast.Import | ast.ImportFrom, optional: bool = False) -> Iterator[tuple[str, Imported]]:
        """Yield the names that an import binds and what they stand for."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, Imported(alias.name, optional=optional)
                else:
                    yield alias.name.partition(".")[0], Imported(alias.name.partition(".")[0], optional=optional)
            return
        base = self.parents[: len(self.parents) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            yield alias.asname or alias.name, Imported(module, alias.name, optional)


def _is_idle(node: ast.stmt) -> bool:
    """Return whether a statement defines nothing and does nothing: ``pass``, or a bare constant such as a docstring."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _plain_targets(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[str]:
    """Return the names that an assignment binds, or none if it also writes elsewhere (``table["x"] = ...``)."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names: list[str] = []
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        if not all(isinstance(part, ast.Name) for part in parts):
            return []
        names += [part.id for part in parts if isinstance(part, ast.Name)]
    return names


def _only_binds(node: ast.stmt) -> bool:
    """Return whether a compound statement only chooses between imports, definitions and assignments."""
    if isinstance(node, ast.If):
        inner = [*node.body, *node.orelse]
    elif isinstance(node, ast.Try):
        inner = [*node.body, *node.orelse, *node.finalbody, *(s for h in node.handlers for s in h.body)]
    else:
        return (
            _is_idle(node)
            or isinstance(node, (ast.Import, ast.ImportFrom, *_FUNCTIONS, ast.ClassDef, ast.Raise))
            or (isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and bool(_plain_targets(node)))
        )
    return all(_only_binds(statement) for statement in inner)


def _bound_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names that statements bind in their own scope, imports apart."""
    bound: set[str] = set()
    free: set[str] = set()

    def visit(node: ast.AST, in_comprehension: bool = False) -> None:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del) and not in_comprehension:
            bound.add(node.id)
        elif isinstance(node, ast.NamedExpr) and isinstance(node.target, ast.Name):
            bound.add(node.target.id)
            visit(node.value, in_comprehension)
            return
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            bound.add(node.name)
            for inner in node.decorator_list:
                visit(inner, in_comprehension)
            return
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.add(node.rest)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            free.update(node.names)
        elif isinstance(node, ast.Lambda):
            return
        inside = in_comprehension or isinstance(node, _COMPREHENSIONS)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    for node in nodes:
        visit(node)
    return bound - free


def _uses_of(nodes: Sequence[ast.expr], reader: _Reader) -> Iterator[Use]:
    """Yield what expressions at the top level use."""
    tokens: list[Token] = []
    for node in nodes:
        _Encoder(reader, tokens, []).node(node, None)
    yield from (token for token in tokens if isinstance(token, Use))


class _Encoder:
    """Writes a syntax tree as tokens; names of the module and imports become uses, to be resolved later."""

    def __init__(self, reader: _Reader, tokens: list[Token], imports: list[Imported]) -> None:
        self.reader = reader
        self.tokens = tokens
        self.imports = imports

    def top_level(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):  # what it is called does not matter, unless it unpacks or chains
            if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
                self.node(node, None)
            else:
                self.node(node.value, None)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.value is not None:
                self.node(node.value, None)
        elif isinstance(node, _FUNCTIONS):
            self._function(node, None, named=False)
        else:
            self.node(node, None)

    def node(self, node: ast.AST, scope: _Scope | None) -> None:
        """Write one node, in the scope whose names it sees (None: the module's)."""
        if isinstance(node, ast.stmt) and _is_idle(node):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._local_import(node, scope)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            self._nodes(node.orelse, scope)
        elif isinstance(node, ast.AnnAssign) and scope is not None and not scope.is_class:
            if node.value is not None:
                self._assignment(node.target, node.value, scope)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assignment(node.targets[0], node.value, scope)
        elif isinstance(node, ast.Global):
            return
        elif isinstance(node, ast.Name):
            self._use(node.id, (), scope, loads=isinstance(node.ctx, ast.Load))
        elif isinstance(node, ast.Attribute):
            self._attribute(node, scope)
        elif isinstance(node, ast.Constant):
            self._constant(node.value)
        elif isinstance(node, ast.JoinedStr):
            self._formatted_string(node, scope)
        elif isinstance(node, ast.ClassDef):
            self._class(node, scope)
        elif isinstance(node, _FUNCTIONS):
            self._function(node, scope, named=True)
        elif isinstance(node, ast.Lambda):
            inner = self._function_scope(node.args, [], scope)
            self.tokens.append("(Lambda")
            self._arguments(node.args, scope)
            self.node(node.body, inner)
            self.tokens.append(")")
        elif isinstance(node, _COMPREHENSIONS):
            self._comprehension(node, scope)
        else:
            self._generic(node, scope)

    def _generic(self, node: ast.AST, scope: _Scope | None, skip: frozenset[str] = frozenset()) -> None:
        self.tokens.append(f"({type(node).__name__}")
        for name, value in ast.iter_fields(node):
            if name in _NEVER_HASHED or name in skip or value is None or value == []:
                continue
            self.tokens.append(f".{name}")
            if isinstance(value, list):
                self._nodes(value, scope)
            elif isinstance(value, ast.AST):
                self.node(value, scope)
            else:
                self.tokens.append(repr(value))
        self.tokens.append(")")

    def _nodes(self, nodes: Sequence[Any], scope: _Scope | None) -> None:
        self.tokens.append("[")
        for item in nodes:
            if isinstance(item, ast.AST):
                self.node(item, scope)
            else:
                self.tokens.append(repr(item))
        self.tokens.append("]")

    def _assignment(self, target: ast.expr, value: ast.expr, scope: _Scope | None) -> None:
        self.tokens.append("(Assign")
        self.node(target, scope)
        self.node(value, scope)
        self.tokens.append(")")

    def _local_import(self, node: ast.Import | ast.ImportFrom, scope: _Scope | None) -> None:
        for _, target in self.reader.imported(node):
            self.imports.append(target)

    def _use(self, name: str, attributes: tuple[str, ...], scope: _Scope | None, loads: bool = True) -> None:
        found = scope.find(name) if scope is not None else False
        if found is True:
            self.tokens.append(f"local {name}")
            self.tokens.extend(f".{attribute}" for attribute in attributes)
        # A class body that reads a name it also binds may mean the module's (``metrics = (*metrics, more)``).
        if found is not True or (loads and scope is not None and scope.is_class and name in scope.bound):
            self.tokens.append(Use(found if isinstance(found, Imported) else name, attributes))

    def _attribute(self, node: ast.Attribute, scope: _Scope | None) -> None:
        attributes = [node.attr]
        inner: ast.expr = node.value
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._use(inner.id, tuple(reversed(attributes)), scope)
            return
        self.node(inner, scope)
        self.tokens.extend(f".{attribute}" for attribute in reversed(attributes))

    def _constant(self, value: Any) -> None:
        if isinstance(value, str) and _REFERENCE.fullmatch(value):
            self.tokens.append(Use(value, in_string=True))
        else:
            self.tokens.append(f"{type(value).__name__} {value!r}")

    def _formatted_string(self, node: ast.JoinedStr, scope: _Scope | None) -> None:
        self.tokens.append("(JoinedStr")
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            self.tokens.append(f"text {text!r}")
            text = ""
            self.node(part, scope)
        self.tokens += [f"text {text!r}", ")"]

    def _class(self, node: ast.ClassDef, scope: _Scope | None) -> None:
        inner = _Scope(scope, is_class=True)
        self._fill(inner, node.body)
        self.tokens.append(f"(ClassDef {node.name}")
        self._nodes(node.decorator_list, scope)
        self._nodes(node.bases, scope)
        self._nodes(node.keywords, scope)
        self._nodes(node.body, inner)
        self.tokens.append(")")

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope | None, named: bool) -> None:
        self.tokens.append(f"({type(node).__name__}" + (f" {node.name}" if named else ""))
        self._nodes(node.decorator_list, scope)
        self._arguments(node.args, scope)
        self._nodes(node.body, self._function_scope(node.args, node.body, scope))
        self.tokens.append(")")

    def _arguments(self, arguments: ast.arguments, scope: _Scope | None) -> None:
        """Write names and defaults; annotations say nothing about what is computed."""
        self.tokens.append("(arguments")
        for kind in ("posonlyargs", "args", "kwonlyargs"):
            self.tokens.append(f".{kind}")
            self.tokens.extend(argument.arg for argument in getattr(arguments, kind))
        for kind in ("vararg", "kwarg"):
            argument = getattr(arguments, kind)
            self.tokens.append(f".{kind} {argument.arg if argument else ''}")
        self._nodes(arguments.defaults, scope)
        self._nodes(arguments.kw_defaults, scope)
        self.tokens.append(")")

    def _function_scope(self, arguments: ast.arguments, body: list[ast.stmt], parent: _Scope | None) -> _Scope:
        scope = _Scope(parent)
        self._fill(scope, body)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        scope.bound.update(argument.arg for argument in every if argument is not None)
        return scope

    def _fill(self, scope: _Scope, body: Sequence[ast.stmt]) -> None:
        scope.bound = _bound_names(body)
        for statement in body:
            for node in _own_nodes(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    scope.imports.update(self.reader.imported(node))

    def _comprehension(self, node: Any, scope: _Scope | None) -> None:
        inner = _Scope(scope)
        for generator in node.generators:
            inner.bound |= _bound_names([generator.target])
        self.tokens.append(f"({type(node).__name__}")
        for index, generator in enumerate(node.generators):
            self.node(generator.iter, inner if index else scope)
            self.node(generator.target, inner)
            self._nodes(generator.ifs, inner)
            self.tokens.append(f"async {generator.is_async}")
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                self.node(getattr(node, name), inner)
        self.tokens.append(")")


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a statement's nodes without those of functions and classes defined inside it."""
    yield node
    if isinstance(node, (*_SCOPES, ast.ClassDef)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _own_nodes(child)
