"""`quickstudy serve --show-settings`: the settings on a terminal."""

from __future__ import annotations

import sys

from service.settings_report import SettingRow, Value, as_json, read_settings, rows, shown, unknown

WIDE = 140
"""Columns of a terminal from which on meanings fit beside values."""


def show_settings(json: bool) -> None:
    """Print every setting: a table on a terminal, lines elsewhere, or JSON.

    Raises SettingsError for values out of bounds.
    """
    found = rows(read_settings())
    if json:
        print(as_json(found))
    elif sys.stdout.isatty():
        _table(found)
    else:
        for row in found:
            about = f"{row.unit}; {row.bounds}; default: {shown(row.default)}"
            print(f"{row.variable}={_assigned(row.value)}  ({about})  {row.meaning}")
    for sentence in unknown():
        print(f"quickstudy: {sentence}", file=sys.stderr)


def _assigned(value: Value) -> str:
    """A value as it is assigned to a variable."""
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str("" if value is None else value)


def _table(found: list[SettingRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    wide = console.width >= WIDE
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold", style="bold")
    table.add_column("default", overflow="fold")
    table.add_column("unit", no_wrap=wide)
    table.add_column("bounds")
    if wide:
        table.add_column("meaning")
    else:
        table.caption = "a wider terminal shows meanings, as do --json and a pipe"
    for row in found:
        cells = (row.variable, shown(row.value), shown(row.default), row.unit, row.bounds)
        table.add_row(*cells, *([row.meaning] if wide else []))
    console.print(table)
