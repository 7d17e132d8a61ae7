"""Configs: what the command line may change, what a resumed run may change, and how they are kept.

A config is an ``ml_collections.ConfigDict`` whose leaves are numbers, strings, booleans, None and
tuples of those. A file in ``configs/`` makes it; ``--config.train.images=1000`` overrides one
field of it. NOTE: the overrides are read here, as ``ml_collections.config_flags`` writes them:
that one answers a misspelt field with a traceback, and while flags are still being defined.
"""

import ast
import difflib
import fnmatch
import importlib.util
import inspect
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import app, flags
from ml_collections import ConfigDict

T = TypeVar("T")

# What may differ between a run and its continuation: it changes how long, how fast, how often or
# how loudly a run goes, never what the next step computes.
RESUMABLE = (
    "train.images",
    "log.*",
    "checkpoint.*",
    "evaluate.*",
    "sample.*",
    "watch.*",
    "mesh.*",
    "model.execution",  # of mixtures of experts: with room for all tokens all compute the same
    "model.capacity_factor",
    "data.path",
    "data.threads",
    "data.prefetch",
    "data.max_broken",
)


# Numbers that may be None: rules that can be turned off.
OPTIONAL = ("watch.min_*", "watch.max_*")


class ConfigError(ValueError):
    """A mistake in a config or on the command line; its message is all that a person needs."""


def choose_preset(presets: Mapping[str, T], name: str) -> T:
    """``presets[name]``, for ``get_config(name)`` of a config file.

    Raises:
      ConfigError: there is no such preset.
    """
    if name in presets:
        return presets[name]
    raise ConfigError(
        f"There is no preset {name!r}{did_you_mean(name, presets)} "
        f"Choose one of: {', '.join(presets)}."
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'a'?"`` with the closest name, or ``"."`` where none is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def at_least(config: ConfigDict, least: Mapping[str, int | float]) -> None:
    """Refuse fields whose numbers are too small, before something divides by them.

    Args:
      least: by field, as ``{"train.batch": 1}``; fields that the config has not are left alone.

    Raises:
      ConfigError: the first field that is below its least value.
    """
    values = flatten(config)
    for name, limit in least.items():
        value = values.get(name, limit)
        if value < limit:
            raise ConfigError(f"config.{name}={value:g} is too small; set {limit:g} or more.")


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """``{"train.images": 1000, ...}``; lists become tuples."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, ConfigDict):
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = _tuples(value)
    return flat


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


# Keeping a config.


def to_json(config: ConfigDict) -> str:
    """The same text for the same config, whatever the order of its fields.

    Raises:
      ConfigError: a leaf that JSON cannot hold, by its name.
    """
    return json.dumps(_plain(config, ""), indent=2, sort_keys=True) + "\n"


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, ConfigDict):
        return {str(k): _plain(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(
        f"config.{path} is a {type(value).__name__}; a config holds numbers, strings, booleans, "
        "None and tuples of them. Name the thing by a string, or make it in the family."
    )


def from_json(text: str) -> ConfigDict:
    """The inverse of :func:`to_json`: a locked config; every list of the text is a tuple.

    Raises:
      ConfigError: not the JSON of a config.
    """

    def config_of(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: config_of(item) for name, item in value.items()}
        return _tuples(value)

    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"A stored config is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"A stored config is a {type(fields).__name__}; an object is wanted.")
    return ConfigDict(config_of(fields)).lock()


def diff(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Names of the fields that differ or that only one of them has."""
    before, after = flatten(old), flatten(new)
    missing = object()
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name, missing) != after.get(name, missing)]


def check_resume(old: ConfigDict, new: ConfigDict, workdir: str | pathlib.Path) -> list[str]:
    """The fields that a run changes as it continues; all of them may.

    Raises:
      ConfigError: a field outside `RESUMABLE` differs: what it was, what it is, what to do.
    """
    changed = diff(old, new)
    fixed = [name for name in changed if not any(fnmatch.fnmatch(name, p) for p in RESUMABLE)]
    if not fixed:
        return changed
    before, after = flatten(old), flatten(new)

    def value(of: dict[str, Any], name: str) -> str:
        return repr(of[name]) if name in of else "absent"

    lines = [f"  {name}: {value(before, name)} then, {value(after, name)} now" for name in fixed]
    raise ConfigError(
        f"{workdir} holds checkpoints of another config:\n" + "\n".join(lines) + "\n"
        "Set these back to continue that run, or give --workdir=... a new directory."
    )


# The command line.


def run(main: Callable[[dict[str, str]], Any]) -> None:
    """``absl.app.run`` for a program with a string flag ``--config`` and overrides of its fields.

    ``main`` gets the overrides, for :func:`override`. A ConfigError and a mistake in a flag end
    the program with status 2 and one clear paragraph, not a traceback.
    """
    found: dict[str, str] = {}

    def parse(argv: Sequence[str]) -> list[str]:
        rest, overrides = split(argv)
        found.update(overrides)
        try:
            return flags.FLAGS(rest)
        except flags.Error as error:
            _fail(error)
        except SystemExit:  # of --help, which absl takes for a failure
            sys.exit(0)

    def call(argv: list[str]) -> Any:
        try:
            if argv[1:]:
                hint = f"; did you mean --config={argv[1]}?" if ".py" in argv[1] else "."
                raise ConfigError(f"{argv[1]!r} belongs to no flag{hint}")
            return main(found)
        except ConfigError as error:
            _fail(error)

    app.run(call, flags_parser=parse)


def _fail(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def split(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take ``--config.field=value``, ``--config.field value`` and ``--[no]config.field`` out.

    Returns:
      The arguments that are left, and the text for each field, the last where it came twice.
    """
    rest: list[str] = []
    overrides: dict[str, str] = {}
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        match = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if match is None:
            rest.append(argument)
            continue
        no, name, value = match.groups()
        if value is None:
            follows = not no and arguments and not arguments[0].startswith("--")
            value = arguments.pop(0) if follows else "false" if no else "true"
        overrides[name] = value
    return rest, overrides


def load(path: str) -> ConfigDict:
    """The config of ``configs/biggan.py`` or ``configs/biggan.py:preset``, locked.

    Raises:
      ConfigError: no such file or preset, or a file without ``get_config``.
    """
    name, *preset = path.split(":", 1)
    file = pathlib.Path(name)
    if not file.is_file() or file.suffix != ".py":
        there = sorted(map(str, file.parent.glob("*.py"))) if file.parent.is_dir() else []
        there = there or sorted(map(str, pathlib.Path("configs").glob("*.py")))
        listed = f" There are: {', '.join(there)}." if there else ""
        raise ConfigError(
            f"There is no config file {name!r}{did_you_mean(name, there)}{listed} "
            "Give --config=path/to/file.py or --config=path/to/file.py:preset."
        )
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError(f"{file} has no get_config(preset), so it is not a config file.")
    if preset and not inspect.signature(get_config).parameters:
        raise ConfigError(f"{file} has no presets; leave out {':' + preset[0]!r}.")
    return get_config(*preset).lock()


def override(config: ConfigDict, overrides: Mapping[str, str]) -> ConfigDict:
    """A locked copy with fields replaced by texts from the command line.

    A text is read as its field's type. A field that is None takes any literal, as one of `OPTIONAL`
    takes None; a resolution takes one number or ``(height, width)``.

    Raises:
      ConfigError: an unknown field, or a text that is not of its type.
    """
    config = config.copy_and_resolve_references().unlock()
    for name, text in overrides.items():
        *groups, last = name.split(".")
        group = config
        for part in groups:
            group = group.get(part) if isinstance(group, ConfigDict) else None
        if not isinstance(group, ConfigDict) or last not in group:
            raise ConfigError(_unknown_field(config, name))
        if isinstance(group[last], ConfigDict):
            inner = ", ".join(f"--config.{name}.{field}" for field in group[last])
            raise ConfigError(f"--config.{name} is a group of fields; set one of them: {inner}.")
        with group.ignore_type():
            group[last] = _read(name, text, group[last])
    return config.lock()


def _read(name: str, text: str, current: Any) -> Any:
    """The value of a text for a field that is ``current`` now."""
    kind = "resolution" if name.endswith("resolution") else type(current)
    optional = any(fnmatch.fnmatch(name, pattern) for pattern in OPTIONAL)
    if optional and text == "None":
        return None
    try:
        return _READERS[kind](text)
    except (ValueError, SyntaxError, KeyError):
        wanted = _WANTED[kind] + (" or None" if optional else "")
        raise ConfigError(
            f"--config.{name}={text}: {name} is {wanted} (here {current!r}), and {text!r} is not."
        ) from None


def _read_int(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        number = float(text)  # 1e6
        if not number.is_integer():
            raise
        return int(number)


def _read_tuple(text: str) -> tuple[Any, ...]:
    value = _tuples(ast.literal_eval(text))
    return value if isinstance(value, tuple) else (value,)


def _read_resolution(text: str) -> int | tuple[int, ...]:
    value = _tuples(ast.literal_eval(text))
    sizes = value if isinstance(value, tuple) else (value, value)
    if [type(size) for size in sizes] != [int, int]:
        raise ValueError(text)
    return value


def _read_any(text: str) -> Any:
    try:
        return _tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


_BOOLS = {"true": True, "t": True, "yes": True, "1": True}
_BOOLS |= {"false": False, "f": False, "no": False, "0": False}

_READERS: dict[Any, Callable[[str], Any]] = {
    bool: lambda text: _BOOLS[text.lower()],
    int: _read_int,
    float: float,
    str: str,
    tuple: _read_tuple,
    type(None): _read_any,
    "resolution": _read_resolution,
}
_WANTED: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    tuple: "a tuple, like \"(32, 64)\" or \"('fid50k', 'kid50k')\"",
    "resolution": 'pixels, one number or "(height, width)"',
}


def _unknown_field(config: ConfigDict, name: str) -> str:
    names = list(flatten(config))
    close = difflib.get_close_matches(name, names, n=1)
    last = name.rpartition(".")[2]  # perhaps the right name in the wrong group
    close += [other for other in names if other.rpartition(".")[2] == last and other not in close]
    if close:
        meant = " or ".join(f"--config.{other}" for other in close[:3])
        return f"--config.{name}: there is no such field; did you mean {meant}?"
    group = name.rpartition(".")[0]
    inside = [other for other in names if other.rpartition(".")[0] == group]
    inside = inside or sorted({other.partition(".")[0] for other in names})
    return f"--config.{name}: there is no such field. There are: {', '.join(inside)}."
