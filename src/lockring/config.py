"""Settings: declared once; read from flags, `LOCKRING_*` variables and a TOML file, in that order.

A command's settings are one `msgspec.Struct`. The declaration of a field holds its type, default, unit, bounds
and help::

    drain_timeout_s: Annotated[float, setting("How long …", unit="seconds", minimum=0)] = 60.0

The flag `--drain-timeout`, the variable `LOCKRING_DRAIN_TIMEOUT`, and the key `drain_timeout` in the command's
table of the file follow from it. Values from every source pass the same check, and an error names the source:
the flag, the variable, or the file, line and key.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from lockring.errors import ConfigError, InvalidRequest
from lockring.names import utf8_fault
from lockring.native import to_native
from lockring.system_errors import reason_of

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE_PREFIX: Final = "LOCKRING_"
CONFIG_VARIABLE: Final = "LOCKRING_CONFIG"
_PATHS: Final = frozenset({"DIR", "FILE"})
"""Metavars of paths: their values may be any bytes and go back to the system unchanged."""

Check = Callable[[Any], object]
"""A function that raises `InvalidRequest` for a value of the right type that the setting refuses."""

Kind = Literal["text", "whole number", "number", "switch", "choice", "list"]
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class _Declaration(msgspec.Struct, frozen=True):
    """The arguments of `setting`."""

    help: str
    metavar: str
    unit: str
    minimum: float | None
    maximum: float | None
    check: Check | None
    key: str
    short: str
    variable: bool
    file: bool
    secret: bool
    table: str


class Setting(msgspec.Struct, frozen=True):
    """One setting, as every reader and every page of help sees it.

    Attributes:
        field: name of the struct's field.
        key: name in the file; with dashes the flag, in capitals the variable.
        kind: the kind of its values.
        default: the value if no source has one; `msgspec.NODEFAULT` if a source must give one.
        choices: the values allowed, for kind "choice".
        declared: help, unit, bounds and allowed sources.
    """

    field: str
    key: str
    kind: Kind
    default: Any
    choices: tuple[str, ...]
    declared: _Declaration

    @property
    def flag(self) -> str:
        """The long command-line option."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str | None:
        """The environment variable, None if it has none."""
        return VARIABLE_PREFIX + self.key.upper() if self.declared.variable else None

    @property
    def place(self) -> tuple[str, str]:
        """The table of the file, "" for that of the command, and the key in it."""
        table = self.declared.table
        return table, self.key.removeprefix(f"{table}_") if table else self.key

    @property
    def is_required(self) -> bool:
        """Whether a source must give a value."""
        return self.default is msgspec.NODEFAULT

    @property
    def is_path(self) -> bool:
        """Whether the value names a file or a directory."""
        return self.declared.metavar in _PATHS

    def expected(self) -> str:
        """Return the form of a valid value, as the end of "expected …"."""
        declared = self.declared
        match self.kind:
            case "choice":
                return "one of " + ", ".join(self.choices)
            case "switch":
                return "true or false"
            case "list":
                return f"one or more of {declared.metavar}, separated by commas"
            case "text":
                return "text"
        what = f"a {self.kind}" + (f" of {declared.unit}" if declared.unit else "")
        if declared.minimum is not None and declared.maximum is not None:
            return f"{what} from {_plain(declared.minimum)} to {_plain(declared.maximum)}"
        if declared.minimum is not None:
            return f"{what}, {_plain(declared.minimum)} or more"
        return what

    def read(self, value: object, source: str) -> Any:
        """Convert a source's value to the field's.

        Args:
            value: text from a flag or a variable, or any TOML value.
            source: where the value came from, for the error.

        Raises:
            ConfigError: it has the wrong type, is out of bounds, or fails the setting's check.
        """
        fault = utf8_fault(value) if isinstance(value, str) and not self.is_path else ""
        if fault:
            raise ConfigError(f"{source}: {self._shown(value)} is not valid UTF-8 text: {fault}")
        try:
            read = self._convert(value)
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(f"{source}: expected {self.expected()}, got {self._shown(value)}") from None
        if self.declared.check is not None:
            try:
                for each in read if self.kind == "list" else (read,):
                    self.declared.check(each)
            except InvalidRequest as error:
                raise ConfigError(f"{source}: {error}") from None
        return read

    def _shown(self, value: object) -> str:
        return "a value that is not shown" if self.declared.secret else _shown(value)

    def _convert(self, value: object) -> Any:
        match self.kind:
            case "text":
                return to_native(_text(value)) if self.is_path else _text(value)
            case "choice":
                if value in self.choices:
                    return value
                raise ValueError(value)
            case "switch":
                return value if isinstance(value, bool) else _switch(value)
            case "list":
                parts = value.split(",") if isinstance(value, str) else list(_array(value))
                found = tuple(_text(part).strip() for part in parts)
                if not found or not all(found):
                    raise ValueError(value)
                return found
            case "whole number":
                return self._bounded(_whole(value))
            case "number":
                return self._bounded(_number(value))

    def _bounded(self, number: float) -> float:
        low, high = self.declared.minimum, self.declared.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(number)
        return number


def setting(
    text: str,
    *,
    metavar: str = "",
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    check: Check | None = None,
    key: str = "",
    short: str = "",
    variable: bool = True,
    file: bool = True,
    secret: bool = False,
    table: str = "",
) -> _Declaration:
    """Declare a setting, as the annotation of a struct's field.

    Args:
        text: its effect and the cost of raising it; for `--help` and the documentation.
        metavar: placeholder of the value in help, such as "HOST:PORT".
        unit: of a number, such as "seconds".
        minimum: smallest value allowed.
        maximum: largest value allowed.
        check: raises `InvalidRequest` for a refused value (of a list: for one of its parts).
        key: name to use instead of the field's, from which a unit such as `_s` is removed.
        short: one-letter flag, such as "-w".
        variable: whether a `LOCKRING_*` variable sets it.
        file: whether the file may set it.
        secret: whether the value may contain a password, and so is shown nowhere.
        table: of the file, for settings that several commands share; the key there is the name without the table's.
    """
    return _Declaration(
        help=text,
        metavar=metavar,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        check=check,
        key=key,
        short=short,
        variable=variable,
        file=file,
        secret=secret,
        table=table,
    )


def shown_without_secrets(settings: msgspec.Struct) -> str:
    """Return the `repr` of settings, without the values of those that are secret."""
    fields = (
        f"{each.field}={'…' if each.declared.secret and value else repr(value)}"
        for each in settings_of(type(settings))
        for value in (getattr(settings, each.field),)
    )
    return f"{type(settings).__name__}({', '.join(fields)})"


@lru_cache(maxsize=32)
def settings_of(struct: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """Return all settings that a struct declares, in order; those of shared tables come last."""
    hints = get_type_hints(struct, include_extras=True)
    defaults = dict(
        zip(reversed(struct.__struct_fields__), reversed(struct.__struct_defaults__), strict=False)
    )
    found = []
    for field in struct.__struct_fields__:
        assert get_origin(hints[field]) is Annotated, (
            f"{struct.__name__}.{field} is not declared as a setting"
        )
        base, declared = get_args(hints[field])[:2]
        kind, choices = _kind_of(base)
        key = declared.key or (field.removesuffix("_s") if declared.unit == "seconds" else field)
        found.append(
            Setting(
                field=field,
                key=key,
                kind=kind,
                default=defaults.get(field, msgspec.NODEFAULT),
                choices=choices,
                declared=declared,
            )
        )
    return tuple(sorted(found, key=lambda each: each.declared.table != ""))


def _kind_of(base: Any) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(base) in (types.UnionType, Union):  # Optional: None if no source has a value
        base = next(each for each in get_args(base) if each is not type(None))
    if get_origin(base) is Literal:
        return "choice", get_args(base)
    if get_origin(base) is tuple:
        return "list", ()
    kinds: dict[Any, Kind] = {str: "text", int: "whole number", float: "number", bool: "switch"}
    return kinds[base], ()


class ConfigFile:
    """A TOML file, checked for unknown tables and keys."""

    def __init__(self, path: Path, sections: Mapping[str, Iterable[Setting]]) -> None:
        """Read the file.

        Args:
            path: of the file.
            sections: the tables that it may have, and the settings in each.

        Raises:
            ConfigError: it cannot be read, is not TOML, or has an unknown table or key.
        """
        import tomllib  # most commands have no file to read

        self.path = path
        keys_of = _keys_of(sections)
        try:
            self._text = path.read_text(encoding="utf-8")
            self._tables = tomllib.loads(self._text)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {reason_of(error)}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not UTF-8 text") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: is not valid TOML: {error}") from None
        for name, table in self._tables.items():
            if name in keys_of and not isinstance(table, dict):
                raise ConfigError(
                    f"{self._place(None, name)}: {name!r} is a table: write [{name}] above its keys"
                )
            if name not in keys_of:
                what = "table" if isinstance(table, dict) else "key outside of a table"
                hint = _meant(name, keys_of, "the tables are " + ", ".join(f"[{each}]" for each in keys_of))
                raise ConfigError(f"{self._place(None, name)}: unknown {what} {name!r}; {hint}")
            keys = keys_of[name]
            for key in table:
                if key not in keys:
                    hint = _meant(key, keys, f"[{name}] has " + ", ".join(keys))
                    raise ConfigError(f"{self._place(name, key)}: unknown key {key!r} in [{name}]; {hint}")

    def get(self, section: str, setting: Setting) -> tuple[object, str] | None:
        """Return the value of a setting and its place in the file, or None if the file does not set it."""
        shared, key = setting.place
        name = shared or section
        table = self._tables.get(name, {})
        if key not in table:
            return None
        return table[key], f"{self._place(name, key)}: [{name}] {key}"

    def _place(self, section: str | None, key: str) -> str:
        """Return the file and, if a plain `key = …` under `[section]` shows it, the line."""
        current = None
        for number, line in enumerate(self._text.splitlines(), start=1):
            stripped = line.strip()
            if stripped.startswith("[") and stripped.split("]")[0] != stripped:
                current = stripped.split("]")[0].lstrip("[").strip().strip("\"'")
                if section is None and current == key:
                    return f"{self.path}, line {number}"
            elif (
                current == section and stripped.split("=")[0].strip().strip("\"'") == key and "=" in stripped
            ):
                return f"{self.path}, line {number}"
        return str(self.path)


def _keys_of(sections: Mapping[str, Iterable[Setting]]) -> dict[str, list[str]]:
    """Return the keys of each table: of the commands, then of what several of them share."""
    found: dict[str, list[str]] = {name: [] for name in sections}
    for name, settings in sections.items():
        for each in settings:
            table, key = each.place
            keys = found.setdefault(table or name, [])
            if each.declared.file and key not in keys:
                keys.append(key)
    return found


_S = TypeVar("_S", bound=msgspec.Struct)


def load(
    struct: type[_S],
    section: str,
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: ConfigFile | None = None,
) -> _S:
    """Collect a command's settings: flags win over variables, variables over the file, the file over defaults.

    Args:
        struct: declares the settings.
        section: the command's table in the file.
        flags: by field; None for a flag that was not given.
        environ: the environment; an empty variable counts as unset.
        file: the settings file, if there is one.

    Raises:
        ConfigError: a value is invalid, a required one is missing, or two contradict each other.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for each in settings_of(struct):
        found = _find(each, section, flags, environ, file)
        if found is not None:
            values[each.field] = each.read(*found)
            sources[each.flag] = found[1]
        elif each.is_required:
            where = f" (or the variable {each.variable})" if each.variable else ""
            what = each.declared.help[:1].lower() + each.declared.help[1:].rstrip(".")
            raise ConfigError(f"{each.flag} is required{where}: {what}")
    try:
        return struct(**values)
    except ConfigError as error:
        notes = _sources_of(str(error), sources)
        raise (type(error)(f"{error} ({notes})") if notes else error) from None


def _sources_of(text: str, sources: Mapping[str, str]) -> str:
    """Return where the settings that a text names by their flags were set, "" if all of them are flags.

    Args:
        text: about several settings.
        sources: by flag, for the settings that are set.
    """
    named = [flag for flag in re.findall(r"--[a-z][a-z-]*", text) if sources.get(flag, flag) != flag]
    return "; ".join(f"{flag} is set by {sources[flag]}" for flag in dict.fromkeys(named))


def _find(
    setting: Setting,
    section: str,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: ConfigFile | None,
) -> tuple[object, str] | None:
    flag = flags.get(setting.field)
    if flag is not None:
        return flag, setting.flag
    if setting.variable is not None and environ.get(setting.variable):
        return environ[setting.variable], f"the variable {setting.variable}"
    return file.get(section, setting) if file is not None and setting.declared.file else None


def unknown_variables(environ: Iterable[str], settings: Iterable[Setting]) -> list[str]:
    """Return the names of `LOCKRING_*` variables that set none of some settings, sorted."""
    known = {CONFIG_VARIABLE, *(each.variable for each in settings if each.variable)}
    return sorted(name for name in environ if name.startswith(VARIABLE_PREFIX) and name not in known)


def misspelt_variables(environ: Iterable[str], settings: Iterable[Setting]) -> list[tuple[str, str]]:
    """Return unknown variables that look like a misspelling of a known one, each with the known one.

    Other unknown `LOCKRING_*` variables are left alone: they may serve another purpose.
    """
    declared = list(settings)
    known = [each.variable for each in declared if each.variable] + [CONFIG_VARIABLE]
    return [
        (name, close)
        for name in unknown_variables(environ, declared)
        for close in _close_matches(name, known, 0.87)
    ]


def _meant(word: str, known: Iterable[str], otherwise: str) -> str:
    close = _close_matches(word, known)
    return f"did you mean {close[0]!r}?" if close else otherwise


def _close_matches(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    import difflib  # only needed after a mistake

    return difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _switch(value: object) -> bool:
    word = _text(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(value)
    return word in _TRUE


def _array(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _whole(value: object) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number
