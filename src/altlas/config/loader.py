"""Resolves the configuration of a process from its sources, in order: the shipped config.ini, the preset named with
--preset, the file given with --config, environment variables ALTLAS_SECTION__KEY, --set section.key=value. A later
source wins.

Every source is checked in full, also where a later one overrides it, and all problems are reported at once.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import ValidationError

import altlas
from altlas.config.fields import Value, all_keys, section_types
from altlas.config.ini import Setting, parse_ini, render_config_ini
from altlas.config.resume import RESUMABLE_KEYS, check_resumable
from altlas.config.sections import Config
from altlas.errors import ConfigError

__all__ = [
    "RESUMABLE_KEYS",
    "check_resumable",
    "config_digest",
    "config_from_json",
    "config_to_json",
    "load_config",
    "preset_names",
    "render_config_ini",
]

_PREFIX = "ALTLAS_"
_PRESETS = importlib.resources.files("altlas.config") / "presets"


def load_config(
    *,
    config_file: Path | None,
    environ: Mapping[str, str],
    overrides: Sequence[str],
    preset: str | None = None,
    pack_file: Traversable | None = None,
) -> Config:
    """Resolve the configuration.

    Args:
        config_file: what --config named.
        environ: environment variables; those named ALTLAS_SECTION__KEY are settings, others are not ours.
        overrides: the arguments of --set, `section.key=value` each.
        preset: what --preset named.
        pack_file: the settings of the task's pack.

    Raises:
        ConfigError: there is no such preset, or a file cannot be read, or a line, a key or a value is wrong; the
            message lists every one with its source.
    """
    problems: list[str] = []
    settings: list[Setting] = []
    base, chosen = _shipped_file(), _preset_file(preset)
    for path, described in (
        (base, str(base)),
        (pack_file, str(pack_file)),
        (chosen, f"--preset {preset}"),
        (config_file, f"--config {config_file}"),
    ):
        if path is not None:
            _collect(problems, settings, _read(path, described))
    _collect(problems, settings, _from_environment(environ))
    _collect(problems, settings, _from_overrides(overrides))
    values: dict[str, dict[str, Value]] = {section: {} for section in section_types()}
    for setting in settings:
        if problem := _problem_of(setting):
            problems.append(problem)
        else:
            values[setting.section][setting.key] = setting.text
    if problems:
        raise ConfigError(_listing(problems))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_listing(_combined_problems(error, settings))) from error


def preset_names() -> Sequence[str]:
    """Return the presets that ship with altlas."""
    return sorted(entry.name.removesuffix(".ini") for entry in _PRESETS.iterdir() if entry.name.endswith(".ini"))


def config_to_json(config: Config) -> str:
    """Return the configuration as canonical JSON: equal configurations give equal text."""
    return json.dumps(config.model_dump(), sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_from_json(text: str) -> Config:
    """Return the configuration that `config_to_json` wrote.

    Raises:
        ConfigError: not JSON, or a key or value that this version does not know.
    """
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        raise ConfigError(
            "this resolved configuration cannot be read; was it written by another version of altlas?\n"
            + "\n".join(f"  {line}" for line in lines)
        ) from error


def config_digest(config: Config) -> str:
    """Return the hexadecimal SHA-256 of the configuration's canonical JSON."""
    return hashlib.sha256(config_to_json(config).encode()).hexdigest()


def _shipped_file() -> Traversable:
    """The wheel's copy, or the checkout's own file where altlas is installed editable."""
    packaged = importlib.resources.files(altlas) / "data" / "config.ini"
    if packaged.is_file():
        return packaged
    checkout = Path(altlas.__file__).parents[2] / "config.ini"
    if checkout.is_file():
        return checkout
    raise ConfigError(
        f"config.ini is missing: neither {packaged} nor {checkout} is there. Install altlas again, or restore the "
        "file in a checkout with `python -m altlas.config.reference --write`."
    )


def _preset_file(preset: str | None) -> Traversable | None:
    if preset is None:
        return None
    names = preset_names()
    if preset not in names:
        raise ConfigError(f"--preset {preset}: there is no such preset; there are {', '.join(names)}")
    return _PRESETS / f"{preset}.ini"


def _read(path: Traversable, described: str) -> tuple[list[Setting], list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return [], [f"{described}: no such file"]
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{described}: cannot be read as UTF-8 text: {error}"]
    return parse_ini(text, where=str(path))


def _from_environment(environ: Mapping[str, str]) -> tuple[list[Setting], list[str]]:
    settings: list[Setting] = []
    for name in sorted(environ):
        section, divider, key = name.removeprefix(_PREFIX).partition("__")
        if name.startswith(_PREFIX) and divider:
            source = f"environment variable {name}"
            settings.append(Setting(source=source, section=section.lower(), key=key.lower(), text=environ[name]))
    return settings, []


def _from_overrides(overrides: Sequence[str]) -> tuple[list[Setting], list[str]]:
    settings: list[Setting] = []
    problems: list[str] = []
    for argument in overrides:
        path, equals, text = argument.partition("=")
        section, dot, key = (part.strip() for part in path.partition("."))
        if equals and dot and section and key:
            source = f"--set {argument}"
            settings.append(Setting(source=source, section=section, key=key, text=text.strip()))
        else:
            problems.append(f"--set {argument}: not of the form section.key=value")
    return settings, problems


def _collect(problems: list[str], settings: list[Setting], found: tuple[Iterable[Setting], Iterable[str]]) -> None:
    settings.extend(found[0])
    problems.extend(found[1])


def _problem_of(setting: Setting) -> str | None:
    """Say what is wrong with one setting by itself, None when nothing is."""
    sections = section_types()
    path = f"{setting.section}.{setting.key}"
    if setting.section not in sections:
        return f"{setting.source}: unknown section [{setting.section}]; {_nearest(path, sections, within='')}"
    section = sections[setting.section]
    if setting.key not in section.model_fields:
        return f"{setting.source}: unknown key {path}; {_nearest(path, section.model_fields, within=setting.section)}"
    # The section's other keys have defaults, so a section of this one key shows whether the value itself is allowed.
    try:
        section.model_validate({setting.key: setting.text})
    except ValidationError as error:
        if any(item["loc"] for item in error.errors()):
            return f"{setting.source}: {path} = {setting.text!r} is not allowed; it must be {all_keys()[path].allowed}"
    return None


def _nearest(path: str, candidates: Iterable[str], *, within: str) -> str:
    """Name what was probably meant: a similar word here, the same key elsewhere, a similar key, else all there is."""
    names, keys = list(candidates), list(all_keys())
    section, _, key = path.partition(".")
    if similar := difflib.get_close_matches(key if within else section, names, n=1):
        return f"did you mean {within}.{similar[0]}?" if within else f"did you mean [{similar[0]}]?"
    if elsewhere := [known for known in keys if known.endswith(f".{key}")]:
        return f"did you mean {' or '.join(elsewhere)}?"
    if close := difflib.get_close_matches(path, keys, n=1):
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(names)}"


def _combined_problems(error: ValidationError, settings: Sequence[Setting]) -> list[str]:
    """Problems of values that are each allowed but not together, with the sources that had the last word."""
    problems = []
    for item in error.errors():
        section = str(item["loc"][0])
        effective = {setting.key: setting.source for setting in settings if setting.section == section}
        sources = "; ".join(f"{key} from {source}" for key, source in effective.items())
        problems.append(f"[{section}]: {item['msg'].removeprefix('Value error, ')} ({sources})")
    return problems


def _listing(problems: Sequence[str]) -> str:
    noun = "problem" if len(problems) == 1 else "problems"
    return "\n".join([f"{len(problems)} {noun} in the configuration:", *(f"  {problem}" for problem in problems)])
