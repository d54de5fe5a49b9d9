"""What code defines, as a digest that does not depend on where the definitions stand.

A definition is a top-level function, class or assignment. Its digest covers its tokens (see `source_tokens`) and,
through every name that it uses, the digests of the definitions of our packages behind those names. Blind to the names
of functions, constants, modules and files, and to the order of files. Seen: everything else, and what an import names
(another function of the same name is another definition). Statements that act when a module is imported (calls, loops,
registering decorators) count for everything that imports the module. Nothing is imported: the source is read.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchsuite.core.errors import ConfigError
from benchsuite.harness.source_tokens import Imported, Module, Statement, Use, read_module

Definition = tuple[str, int]  # module and index of a statement


@dataclass(frozen=True)
class Found:
    """A definition of ours; ``name`` says which of the names that its statement binds, where there are several."""

    definition: Definition
    name: str = ""


Target = Found | str  # or the text that stands for what is not ours


class Definitions:
    """The definitions of some packages, and their digests.

    Parameters
    ----------
    packages
        Top-level packages that count as ours: what they import from one another is followed.
    apart
        Modules (with all below them) that carry runs but do not decide what a number is: named, not followed.
    roots
        Folders in which the packages lie; none: where Python would import them from.
    """

    def __init__(self, packages: Iterable[str], apart: Sequence[str] = (), roots: Sequence[Path] = ()) -> None:
        self.packages = frozenset(packages)
        self.apart = tuple(apart)
        self.roots = tuple(roots)
        self._sources: dict[str, Path | bool | None] = {}
        self._modules: dict[str, Module | None] = {}
        self._colours: dict[Definition, str] = {}
        self._digests: dict[str, str] = {}
        self._reached: dict[Definition, tuple[Definition, ...]] = {}

    def digest(self, reference: str) -> str:
        """Return the digest of ``"module:Name"``, effects of the modules behind it included.

        Raises
        ------
        ConfigError
            If a module or name of our packages cannot be found.
        """
        if reference not in self._digests:
            self._digests[reference] = self._digest(reference)
        return self._digests[reference]

    def _digest(self, reference: str) -> str:
        module, _, name = reference.partition(":")
        targets = self._lookup(module, name)
        if not targets:
            raise ConfigError(f"{reference} cannot be found: {module} defines no {name}")
        roots = [target.definition for target in targets if isinstance(target, Found)]
        effects = self._effects_behind(roots)
        colours = [self._colour(t.definition) if isinstance(t, Found) else t for t in targets]
        return _sha256([*colours, "effects", *sorted({self._colour(effect) for effect in effects})])

    def _statement(self, definition: Definition) -> Statement:
        module = self._modules[definition[0]]
        assert module is not None  # definitions come from modules that were found
        return module.statements[definition[1]]

    # Resolving

    def _is_ours(self, module: str) -> bool:
        return module.partition(".")[0] in self.packages

    def _is_apart(self, module: str) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in self.apart)

    def _source_of(self, name: str) -> Path | bool | None:
        if name not in self._sources:
            self._sources[name] = _find_source(name, self.roots)
        return self._sources[name]

    def _module(self, name: str) -> Module | None:
        """Return the analysis of a module of ours, or None if there is none of that name."""
        if name not in self._modules:
            found = self._source_of(name)
            if found is None:
                self._modules[name] = None
            elif isinstance(found, Path):
                self._modules[name] = read_module(name, found, found.stem == "__init__")
            else:
                self._modules[name] = Module(name)
        return self._modules[name]

    def _lookup(self, module: str, name: str) -> list[Target]:
        """Return what a name stands for in a module of ours, following imports; empty if it is not there."""
        return self._lookup_from(module, name, frozenset())

    def _lookup_from(self, module: str, name: str, asked: frozenset[tuple[str, str]]) -> list[Target]:
        if (module, name) in asked:
            return []
        asked |= {(module, name)}
        source = self._module(module)
        if source is None:
            raise ConfigError(f"module {module} cannot be found")
        if name in source.bindings:
            targets: list[Target] = []
            for binding in source.bindings[name]:
                if isinstance(binding, int):
                    targets.append(Found((module, binding), "" if source.statements[binding].plain else name))
                else:
                    targets += self._import_targets(module, binding, asked)
            return targets
        for star in source.stars:
            if self._is_ours(star) and not self._is_apart(star) and (found := self._lookup_from(star, name, asked)):
                return found
        if self._module(f"{module}.{name}") is not None:
            return [f"module {module}.{name}"]
        if "__getattr__" in source.bindings or source.opaque:
            return [Found((module, index), name) for index in range(len(source.statements))]
        return []

    def _import_targets(self, where: str, found: Imported, asked: frozenset[tuple[str, str]]) -> list[Target]:
        if not self._is_ours(found.module):
            path = f"{found.module}.{found.attribute}" if found.attribute else found.module
            return [f"external {path}"]
        path = f"{found.module}.{found.attribute}" if found.attribute else found.module
        if self._is_apart(path):
            return [self._apart_target(path)]
        if self._module(found.module) is None:
            if found.optional:
                return []
            raise ConfigError(f"{where} imports {found.module}, which cannot be found")
        if not found.attribute:
            return [f"module {found.module}"]
        targets = self._lookup_from(found.module, found.attribute, asked)
        if not targets and not found.optional and (found.module, found.attribute) not in asked:
            raise ConfigError(f"{where} imports {found.attribute} from {found.module}, which does not define it")
        return targets

    def _resolve(self, module: str, use: Use) -> tuple[list[Target], tuple[str, ...]]:
        """Return what a use stands for, and the attributes that remain to be taken from it."""
        attributes = use.attributes
        if use.in_string:
            return self._resolve_string(str(use.source)), ()
        if isinstance(use.source, Imported):
            targets = self._import_targets(module, use.source, frozenset())
        else:
            targets = self._lookup(module, use.source) or [f"builtin {use.source}"]
        while len(targets) == 1 and attributes and isinstance(targets[0], str):
            kind, _, path = targets[0].partition(" ")
            if kind == "external":
                targets, attributes = [f"external {path}.{attributes[0]}"], attributes[1:]
            elif kind == "module":
                inner = f"{path}.{attributes[0]}"
                if self._is_apart(inner):
                    targets = [self._apart_target(inner)]
                else:
                    targets = self._lookup(path, attributes[0])
                    if not targets:
                        raise ConfigError(f"{module} uses {inner}, which cannot be found")
                attributes = attributes[1:]
            else:
                break
        return targets, attributes

    def _apart_target(self, path: str) -> str:
        return f"module {path}" if self._source_of(path) is not None else f"apart {path.rpartition('.')[2]}"

    def _resolve_string(self, text: str) -> list[Target]:
        module, _, name = text.partition(":")
        if self._is_ours(module) and not self._is_apart(module) and self._module(module) is not None:
            found = self._lookup(module, name)
            if found:
                return found
        return [f"str {text!r}"]

    # Digests

    def _links(self, definition: Definition) -> tuple[Definition, ...]:
        """Return the definitions that a definition uses, in the order of its tokens."""
        if definition not in self._reached:
            links: list[Definition] = []
            for token in self._statement(definition).tokens:
                if isinstance(token, Use):
                    targets, _ = self._resolve(definition[0], token)
                    links += [t for target in targets for t in self._definitions_of(target)]
            self._reached[definition] = tuple(links)
        return self._reached[definition]

    def _definitions_of(self, target: Target) -> list[Definition]:
        """Return the definitions a target stands for: all of a module that is used as a value."""
        if isinstance(target, Found):
            return [target.definition]
        kind, _, path = target.partition(" ")
        if kind != "module" or self._is_apart(path):
            return []
        source = self._module(path)
        return [(path, index) for index in range(len(source.statements))] if source is not None else []

    def _colour(self, definition: Definition) -> str:
        """Return the digest of a definition and all that it uses."""
        if definition not in self._colours:
            for group in _strong_components(definition, self._links, self._colours):
                self._colour_group(group)
        return self._colours[definition]

    def _colour_group(self, group: Sequence[Definition]) -> None:
        """Give digests to definitions that use one another; all others that they use have theirs."""
        inside = dict.fromkeys(group, "")
        for _ in range(len(group)):
            inside = {member: self._tokens_digest(member, inside) for member in group}
        if len(group) > 1:
            whole = _sha256(sorted(inside.values()))
            inside = {member: _sha256([whole, colour]) for member, colour in inside.items()}
        self._colours.update(inside)

    def _tokens_digest(self, definition: Definition, inside: Mapping[Definition, str]) -> str:
        parts: list[str] = []
        for token in self._statement(definition).tokens:
            if isinstance(token, str):
                parts.append(token)
                continue
            targets, attributes = self._resolve(definition[0], token)
            for target in targets:
                parts.append(self._text_of(target, inside))
            parts += [f".{attribute}" for attribute in attributes]
        return _sha256(parts)

    def _text_of(self, target: Target, inside: Mapping[Definition, str]) -> str:
        def colour(definition: Definition) -> str:
            return inside[definition] if definition in inside else self._colours[definition]

        if isinstance(target, Found):
            return f"definition {target.name} {colour(target.definition)}"
        kind, _, path = target.partition(" ")
        if kind != "module":
            return target
        if self._is_apart(path):
            return f"apart {path.rpartition('.')[2]}"
        source = self._module(path)
        names = sorted((source.bindings if source else {}).items())
        parts = [f"{name} {colour((path, t))}" for name, found in names for t in found if isinstance(t, int)]
        return "module " + _sha256(parts)

    # Effects

    def _effects_behind(self, roots: Sequence[Definition]) -> set[Definition]:
        """Return the statements that act at import, of all modules that the roots make Python import."""
        effects: set[Definition] = set()
        modules: set[str] = set()
        seen: set[Definition] = set()
        waiting = list(roots)
        while waiting:
            definition = waiting.pop()
            if definition in seen:
                continue
            seen.add(definition)
            waiting += self._links(definition)
            for name in (definition[0], *self._imported_modules(self._statement(definition).imports)):
                for acting in self._acting_statements(name, modules):
                    effects.add(acting)
                    waiting.append(acting)
        return effects

    def _acting_statements(self, name: str, modules: set[str]) -> Iterator[Definition]:
        """Yield the acting statements of a module and of what it imports, of modules not seen before."""
        pending = [name]
        while pending:
            module = pending.pop()
            if module in modules or not self._is_ours(module) or self._is_apart(module):
                continue
            modules.add(module)
            source = self._module(module)
            if source is None:
                continue
            pending += [module.rpartition(".")[0]] if "." in module else []
            pending += self._imported_modules(source.imports)
            yield from ((module, index) for index in source.effects)
            for index, statement in enumerate(source.statements):
                if self._registers(module, statement):
                    yield (module, index)

    def _imported_modules(self, imports: Iterable[Imported]) -> list[str]:
        found = []
        for item in imports:
            if self._is_ours(item.module) and not self._is_apart(item.module):
                found.append(item.module)
                if item.attribute and item.attribute != "*" and item.attribute not in self._names_of(item.module):
                    found.append(f"{item.module}.{item.attribute}")
        return found

    def _names_of(self, module: str) -> Iterable[str]:
        source = self._module(module)
        return source.bindings if source is not None else ()

    def _registers(self, module: str, statement: Statement) -> bool:
        """Return whether defining a function or class has an effect: a decorator of ours, or a base that is told."""
        for use in statement.decorators:
            targets, _ = self._resolve(module, use)
            if any(isinstance(target, Found) for target in targets):
                return True
        return self._marks(module, statement, frozenset())

    def _marks(self, module: str, statement: Statement, asked: frozenset[Definition]) -> bool:
        for use in statement.bases:
            targets, _ = self._resolve(module, use)
            for target in targets:
                if not isinstance(target, Found) or target.definition in asked:
                    continue
                base_module, _ = target.definition
                base = self._statement(target.definition)
                if base.marks_subclasses or self._marks(base_module, base, asked | {target.definition}):
                    return True
        return False


def _find_source(module: str, roots: Sequence[Path]) -> Path | bool | None:
    """Return the source file of a module, True for a folder without one, None if there is no such module."""
    if roots:
        return _find_below(roots, module)
    top, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        origin = Path(spec.origin) if spec.origin else None
        return origin if origin is not None and origin.is_file() else True
    return _find_below([Path(location) for location in spec.submodule_search_locations or ()], rest)


def _find_below(folders: Iterable[Path], module: str) -> Path | bool | None:
    for folder in folders:
        base = folder.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            if (path := base.with_name(base.name + suffix)).is_file():
                return path
        if base.is_dir():
            return True
    return None


def _strong_components(
    start: Definition, links: Callable[[Definition], Iterable[Definition]], done: Mapping[Definition, str]
) -> Iterator[list[Definition]]:
    """Yield the groups of definitions that use one another, those that are used first (Tarjan, without recursion)."""
    index: dict[Definition, int] = {}
    lowest: dict[Definition, int] = {}
    stack: list[Definition] = []
    on_stack: set[Definition] = set()
    work: list[tuple[Definition, Iterator[Definition]]] = []

    def enter(definition: Definition) -> None:
        index[definition] = lowest[definition] = len(index)
        stack.append(definition)
        on_stack.add(definition)
        work.append((definition, iter(links(definition))))

    enter(start)
    while work:
        definition, following = work[-1]
        for linked in following:
            if linked in done:
                continue
            if linked not in index:
                enter(linked)
                break
            if linked in on_stack:
                lowest[definition] = min(lowest[definition], index[linked])
        else:
            work.pop()
            if work:
                lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[definition])
            if lowest[definition] == index[definition]:
                group = []
                while True:
                    member = stack.pop()
                    on_stack.discard(member)
                    group.append(member)
                    if member == definition:
                        break
                yield group


def _sha256(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()
