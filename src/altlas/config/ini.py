"""config.ini as text: read with the line of every key, and rendered with its comments.

The dialect is the common core of INI: `[section]`, `key = value`, whole-line comments that start with # or ;. The
standard library's reader forgets line numbers and stops at the first mistake; this one keeps both.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from altlas.config.fields import keys_of, section_summary, section_types, value_text
from altlas.config.sections import Config

_SECTION = re.compile(r"\[([^\[\]]+)\]")
_WIDTH = 118


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value that somebody set, and where."""

    source: str
    section: str
    key: str
    text: str


def parse_ini(text: str, *, where: str) -> tuple[list[Setting], list[str]]:
    """Return the settings of an INI text and the problems of its lines; `where` names the file in both."""
    settings: list[Setting] = []
    problems: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    section = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line, source = raw.strip(), f"{where}:{number}"
        if not line or line[0] in "#;":
            continue
        if match := _SECTION.fullmatch(line):
            section = match[1].strip()
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            problems.append(f"{source}: {line!r} is neither [section], key = value nor a # comment")
        elif not section:
            problems.append(f"{source}: {key} stands before the first [section]")
        elif (first := seen.setdefault((section, key), number)) != number:
            problems.append(f"{source}: {section}.{key} is set a second time; line {first} sets it too")
        else:
            settings.append(Setting(source=source, section=section, key=key, text=value))
    return settings, problems


def render_config_ini(config: Config) -> str:
    """Return a configuration as a commented config.ini; reading it back gives an equal configuration."""
    blocks = ["\n".join(_comment(_PREAMBLE))]
    for section in section_types():
        values = getattr(config, section)
        lines = [f"[{section}]", *_comment(section_summary(section))]
        for key in keys_of(section):
            value = value_text(getattr(values, key.name))
            allowed = key.allowed[0].upper() + key.allowed[1:]
            lines += ["", *_comment(key.description), *_comment(f"{allowed}; default: {key.default or 'empty'}.")]
            lines.append(f"{key.name} = {value}".rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


_PREAMBLE = (
    "Every setting of AltLAS. Later sources win: this file, the preset named with --preset, the file given with "
    "--config, environment variables named ALTLAS_SECTION__KEY, --set section.key=value on the command line. An "
    "unknown key or a value out of range is an error."
)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
