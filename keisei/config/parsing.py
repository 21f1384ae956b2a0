"""Read YAML, JSON and TOML: numbers as people write them, and no key twice.

The parsers are imported where they are needed: YAML's costs 8 ms, and many programs build their
config without one. No message quotes the text, which may hold a secret.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

from keisei.config.lines import Key, Lines, Words, is_word, of_keys, of_nodes, words_of
from keisei.errors import quoted
from keisei.redaction.rule import Rule

SUFFIXES = ("yaml", "yml", "json", "toml")

_FLOAT = Rule(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
_INTEGER = Rule(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_CLOSING = {"[": "]", "{": "}", '"': '"', "'": "'"}
_JSON_TOKEN = Rule(r'"(?:[^"\\]|\\.)*+"|[{}\[\],]')
_TAB = Rule(r" *\t")
_TOML_TABLE = Rule(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]")
_TOML_LONG = Rule(r'"""|\'\'\'')
_TOML_KEY = Rule(r"""\s*([\w"'.\- \t]+?)\s*=""")


class ParseError(Exception):
    """Where a text does not parse, without quoting it (a parser's own message may)."""


def parse(text: str, suffix: str) -> Any:
    """Return what a config's text holds; ``None`` where it holds nothing.

    Args:
        text: the text.
        suffix: its format, one of `SUFFIXES`.

    Raises:
        ParseError: it does not parse, or has a key twice.
    """
    if suffix == "json":
        return _parse_json(text) if text.strip() else None
    return _parse_toml(text) or None if suffix == "toml" else _parse_yaml(text)


class Parsed(NamedTuple):
    """What a config's text holds.

    Attributes:
        data: its data; ``None`` where it holds nothing.
        lines: on which line each key stands, by the keys on the way to it.
        words: by path, what is a boolean to YAML and a word to people: `on`, `off`, `yes`, `no`.
    """

    data: Any
    lines: Lines = {}
    words: Words = {}


def parse_file(text: str, suffix: str) -> Parsed:
    """Return what a config's text holds, and where.

    Args:
        text: the text.
        suffix: its format, one of `SUFFIXES`.

    Raises:
        ParseError: it does not parse, or has a key twice.
    """
    if suffix in ("yaml", "yml"):
        node = _compose(text)
        if node is None:
            return Parsed(None, {}, {})
        # Constructed first: that puts what is merged (`<<`) before a mapping's own keys.
        data = _construct(node)
        return Parsed(data, of_nodes(node), words_of(node))
    keys = _toml_keys(text) if suffix == "toml" else _json_keys(text)
    return Parsed(parse(text, suffix), of_keys((path, line) for path, line, _ in keys), {})


def word_of(text: str) -> str | None:
    """Return an override's text where it is a word that YAML takes for a boolean."""
    return text.strip() if is_word(text.strip()) else None


def parse_value(text: str) -> Any:
    """Return the value of an override's text.

    A number, a boolean or a null is what YAML takes it for; what begins with a bracket or a quote
    is YAML to its end; anything else is the text itself, with whatever it holds (`#`, `: `).

    Raises:
        ParseError: it begins with a bracket or a quote, and is no YAML to its end.
    """
    text = text.strip()
    if text[:1] in _CLOSING:
        node, problem = None, ""
        try:
            node = _compose(text)
        except ParseError as exc:
            problem = str(exc)
        if node is not None and node.end_mark.index == len(text) and text[-1] == _CLOSING[text[0]]:
            return _construct(node)
        if node is not None or "no valid YAML" in problem:
            problem = "a value that begins with a bracket or a quote is YAML to its end; quote it"
        raise ParseError(problem)
    import yaml

    loader = _loader()("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if tag.rpartition(":")[2] not in ("null", "bool", "int", "float"):
        return text
    return _construct(yaml.ScalarNode(tag, text))


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ParseError("a number is too large")
    return number


def _parse_json(text: str) -> Any:
    twice = False

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        data = dict(pairs)
        twice = twice or len(data) != len(pairs)
        return data

    try:
        data = json.loads(text, object_pairs_hook=made, parse_float=_finite)
    except json.JSONDecodeError as exc:
        problem = f"line {exc.lineno}, column {exc.colno}: {exc.msg}"
        if text[exc.pos :].lstrip().startswith(("//", "/*", "#")):
            problem += ": JSON has no comments, and YAML has"
    else:
        if not twice:
            return data
        problem = _twice(*next(_standing_twice(_json_keys(text))))
    raise ParseError(problem)


def _standing_twice(keys: Iterable[Key]) -> Iterator[tuple[list[str], int, int]]:
    """Yield the keys that stand twice: their path, and both lines."""
    for path, line, earlier in keys:
        if earlier is not None:
            yield [part for part in path if part], earlier, line


def _json_keys(text: str) -> Iterator[Key]:
    """Yield each key of a JSON text; a list that it stands in is an empty part of its path."""
    seen: list[dict[str, int] | None] = []  # of each object that is open; ``None`` for a list
    path: list[str] = []
    line, position, comes_a_key = 1, 0, False
    for token in _JSON_TOKEN.regex.finditer(text):
        line += text.count("\n", position, token.start())
        position = token.start()
        match token[0][0]:
            case "{" | "[" as opened:
                seen.append({} if opened == "{" else None)
                path.append("")
                comes_a_key = opened == "{"
            case "}" | "]":
                seen.pop()
                path.pop()
                comes_a_key = False
            case ",":
                comes_a_key = bool(seen) and seen[-1] is not None
            case _ if comes_a_key and (keys := seen[-1]) is not None:
                comes_a_key = False
                path[-1] = json.loads(token[0])
                yield tuple(path), line, keys.get(path[-1])
                keys[path[-1]] = line


def _parse_toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text, parse_float=_toml_float)
    except tomllib.TOMLDecodeError as exc:
        problem, _, where = str(exc).rpartition(" (")
        where = where.rstrip(")")
    if not problem.startswith(
        ("Cannot declare", "Cannot overwrite", "Duplicate", "Cannot redefine")
    ):
        raise ParseError(f"no valid TOML {where}")
    found = next(_standing_twice(_toml_keys(text)), None)
    raise ParseError(_twice(*found) if found else f"a key stands twice {where}")


def _toml_float(text: str) -> float:
    return float(text) if "inf" in text else _finite(text)


def _toml_keys(text: str) -> Iterator[Key]:
    """Yield each key of a TOML text that begins a line; what is in one line it does not see."""
    seen: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = False  # a text of several lines
    for number, line in enumerate(text.split("\n"), start=1):
        starts_inside, inside = inside, inside ^ (len(_TOML_LONG.regex.findall(line)) % 2 == 1)
        if starts_inside:
            continue
        if (opened := _TOML_TABLE.regex.match(line)) is not None:
            table = key = _toml_parts(opened[2])
            if opened[1] == "[[":  # each one is another
                seen = {known: line for known, line in seen.items() if known[: len(key)] != key}
                yield key, number, None
                continue
        elif (assigned := _TOML_KEY.regex.match(line)) is not None:
            key = (*table, *_toml_parts(assigned[1]))
        else:
            continue
        yield key, number, seen.get(key)
        seen[key] = number


def _toml_parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip(" \t\"'") for part in text.split("."))


def _parse_yaml(text: str) -> Any:
    node = _compose(text)
    return None if node is None else _construct(node)


def _compose(text: str) -> Any:
    """Return the tree of nodes that a YAML text is."""
    import yaml

    try:
        node = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"{_at(mark)}: " if mark else ""
        if "another document" in str(getattr(exc, "problem", "")):
            problem = f"{where}a second document begins: a config is one, without a line of `---`"
        else:
            problem = f"{where}no valid YAML"
            if mark and _TAB.regex.match([*text.split("\n"), ""][mark.line]):
                problem += ": a tab stands in the indent, which is made of blanks"
    else:
        if node is not None:
            _check_nodes(node)
        return node
    raise ParseError(problem)


def _construct(node: Any) -> Any:
    import yaml

    try:
        return _loader()("").construct_document(node)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"{_at(mark)}: " if mark else ""
        is_key = "unhashable" in str(getattr(exc, "problem", ""))  # a mapping, or a list
    hint = ": a key is a text; a template's `{{ ... }}` is filled in first" if is_key else ""
    raise ParseError(f"{where}no valid YAML{hint}")


def _at(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!", 1)


def _check_nodes(root: Any) -> None:
    """Refuse a key that stands twice in a mapping, and tags that are not YAML's own."""
    import yaml

    known = {"tag:yaml.org,2002:merge", *_loader().yaml_constructors}
    left: list[tuple[Any, list[str]]] = [(root, [])]
    met = set()
    while left:
        node, path = left.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        if node.tag not in known:
            raise ParseError(
                f"{_at(node.start_mark)}: the tag {quoted(_short(node.tag))} is not taken: "
                "a config holds plain data: write the value itself"
            )
        if isinstance(node, yaml.SequenceNode):
            left += [(item, [*path, str(n)]) for n, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else ""
                if key.tag.endswith(":bool") and name.lower() not in ("true", "false"):
                    key.tag = "tag:yaml.org,2002:str"  # nobody calls a key `on` to mean true
                left += [(value, [*path, name]), (key, path)]
                line = key.start_mark.line + 1
                if name and (key.tag, name) in lines and not key.tag.endswith(":merge"):
                    raise ParseError(_twice([*path, name], lines[key.tag, name], line))
                lines[key.tag, name] = line


def _twice(path: list[str], first: int, second: int) -> str:
    where = f"line {first}" if first == second else f"lines {first} and {second}"
    return f"{where}: the key {quoted('.'.join(path), 200)} stands twice"


@cache
def _loader() -> Any:
    """Return YAML's safe loader, with the numbers of YAML 1.2, no base 60, and dates as texts."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is

    class Loader(base):  # type: ignore[misc]
        pass

    numbers = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int")
    # A date is what its field makes of it; `=` would be an error.
    others = {*numbers, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag not in others]
        for first, rules in base.yaml_implicit_resolvers.items()
    }
    for tag, rule, make in zip(numbers, (_FLOAT, _INTEGER), (_float, _integer), strict=True):
        whole = re.compile(rf"(?:{rule.regex.pattern})\Z")
        Loader.add_implicit_resolver(tag, whole, list("-+.0123456789"))
        Loader.add_constructor(tag, partial(_number, make))
    return Loader


def _number(make: Callable[[str], float], loader: Any, node: Any) -> float:
    try:
        return make(node.value)
    except ParseError as exc:
        problem = str(exc)
    except ValueError:  # Python reads no more than 4,300 digits
        problem = "a whole number has too many digits, or is none"
    # A node that an override is made of stands nowhere.
    where = "" if node.start_mark is None else f"{_at(node.start_mark)}: "
    raise ParseError(f"{where}{problem}")


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    if plain.endswith(("inf", "nan")):
        return float(plain.replace(".", ""))
    return _finite(plain)


def _integer(text: str) -> int:
    plain = text.replace("_", "").lower()
    prefix = plain.lstrip("+-")[:2]
    base = {"0b": 2, "0o": 8, "0x": 16}.get(prefix, 10)
    return int(plain, base)
