"""Configs: what the command line may change, what a resumed run may change, and how they are kept.

A config is an ``ml_collections.ConfigDict`` whose leaves are numbers, strings, booleans, None and
tuples of those. A file in ``configs/`` makes it; ``--config.train.images=1000`` overrides one
field of it.
"""

import difflib
import fnmatch
import importlib.util
import inspect
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

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
    "data.path",
    "data.threads",
    "data.prefetch",
    "data.max_broken",
)


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
        f"There is no preset {name!r}{did_you_mean(name, presets)}. "
        f"Choose one of: {', '.join(presets)}."
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'a' or 'b'?"``, or nothing where no name is close."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train.images": 1000, ...}``; lists become tuples."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, (Mapping, ConfigDict)):
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
    if isinstance(value, (Mapping, ConfigDict)):
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


def run(main: Callable[[list[str]], Any]) -> None:
    """``absl.app.run`` that answers a mistake with one clear paragraph instead of a traceback."""
    app.run(main, flags_parser=parse_flags)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse the flags; exit with status 2 and a clear message on a mistake."""
    try:
        return parse(argv)
    except (ConfigError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def parse(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parse the flags.

    Raises:
      ConfigError: no such config file, preset or field, or a value of another type.
      flags.Error: a mistake in another flag.
    """
    path = _config_path(argv, flag_values)
    try:
        return flag_values(argv)
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, ConfigError):
                raise cause from None
        if path is not None:
            check_overrides(load(path), argv)
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _config_path(argv: Sequence[str], flag_values: flags.FlagValues) -> str | None:
    path = flag_values["config"].default if "config" in flag_values else None
    for i, argument in enumerate(argv[1:], 1):
        match = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if match:
            path = match[1] if match[1] is not None else next(iter(argv[i + 1 :]), None)
    if path is not None:
        _existing(path)
    return path


def _existing(path: str) -> tuple[pathlib.Path, list[str]]:
    """The file of ``path.py:preset``, and its preset if it has one."""
    name, *preset = path.split(":", 1)
    file = pathlib.Path(name)
    if not file.is_file():
        there = sorted(map(str, (file.parent if file.parent.is_dir() else file).glob("*.py")))
        there = there or sorted(map(str, pathlib.Path("configs").glob("*.py")))
        listed = f" There are: {', '.join(there)}." if there else ""
        raise ConfigError(
            f"There is no config file {name!r}{did_you_mean(name, there)}.{listed} "
            "Give --config=path/to/file.py or --config=path/to/file.py:preset."
        )
    return file, preset


def load(path: str) -> ConfigDict:
    """The config of ``configs/biggan.py`` or ``configs/biggan.py:preset``, locked.

    Raises:
      ConfigError: no such file or preset, or a file without ``get_config``.
    """
    file, preset = _existing(path)
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is not a Python file; a config file ends in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError(f"{file} has no get_config(preset), so it is not a config file.")
    if preset and not inspect.signature(get_config).parameters:
        raise ConfigError(f"{file} has no presets; leave out {':' + preset[0]!r}.")
    return get_config(*preset).lock()


_KINDS = {bool: "true or false", int: "an integer", float: "a number", tuple: "a tuple"}


def check_overrides(config: ConfigDict, argv: Sequence[str]) -> None:
    """Explain the first override that ``config`` cannot take.

    Raises:
      ConfigError: an unknown field, or a value of another type than the field's.
    """
    for name, value in _overrides(argv):
        try:
            current = _field(config, name)
        except KeyError:
            raise ConfigError(_unknown_field(config, name)) from None
        if isinstance(current, ConfigDict):
            inner = ", ".join(f"{name}.{field}" for field in current)
            raise ConfigError(f"--config.{name} is a group of fields; set one of them: {inner}.")
        kind = type(current)
        if value is not None and not _fits(value, kind):
            hint = f' Write it as --config.{name}="(1, 2)".' if kind is tuple else ""
            raise ConfigError(
                f"--config.{name}={value}: {name} is {_KINDS[kind]} (here {current!r}), "
                f"and {value!r} is not.{hint}"
            )


def _overrides(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for i, argument in enumerate(argv):
        match = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if match is None:
            continue
        value = match[3]
        if value is None and not match[1]:
            following = argv[i + 1] if i + 1 < len(argv) else "--"
            value = None if following.startswith("--") else following
        yield match[2], value


def _field(config: ConfigDict, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        index = re.fullmatch(r"(.*)\[(\d+)\]", part)
        if not isinstance(value, ConfigDict) or (index[1] if index else part) not in value:
            raise KeyError(name)
        value = value[index[1]][int(index[2])] if index else value[part]
    return value


def _fits(value: str, kind: type) -> bool:
    if kind is bool:
        return value.lower() in ("true", "false", "t", "f", "1", "0", "yes", "no", "y", "n")
    if kind is tuple:
        return bool(re.fullmatch(r"\s*[(\[].*[)\]]\s*|[^()\[\]]+", value, re.DOTALL))
    if kind in (int, float):
        try:
            int(value, 0) if kind is int else float(value)
        except ValueError:
            return False
    return True


def _unknown_field(config: ConfigDict, name: str) -> str:
    names = list(flatten(config))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    last = name.rpartition(".")[2]  # the right name in the wrong group
    close += [other for other in names if other.rpartition(".")[2] == last and other not in close]
    if close:
        meant = " or ".join(f"--config.{other}" for other in close[:3])
        return f"--config.{name}: there is no such field; did you mean {meant}?"
    group = name
    while group and not isinstance(_group(config, group), ConfigDict):
        group = group.rpartition(".")[0]
    inside = _group(config, group) if group else config
    fields = ", ".join(f"{group}.{field}" if group else field for field in inside)
    return f"--config.{name}: there is no such field. Near it are: {fields}."


def _group(config: ConfigDict, name: str) -> Any:
    try:
        return _field(config, name)
    except KeyError:
        return None
