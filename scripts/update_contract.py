"""Writes tests/golden/contract.json, what plugins rely on. A change of it is deliberate, and has a news fragment."""

import dataclasses
import enum
import inspect
import json
from pathlib import Path
from typing import Any

import ralph_core
from ralph_core.hookspecs import RalphSpec

GOLDEN = Path(__file__).resolve().parents[1] / "tests/golden/contract.json"


def contract() -> dict[str, Any]:
    """Hooks, public names, fields, members and methods, as plain data."""
    public = {name: getattr(ralph_core, name) for name in ralph_core.__all__}
    classes = {name: value for name, value in public.items() if inspect.isclass(value)}
    return {
        "version": ralph_core.CONTRACT_VERSION,
        "hooks": {
            name: {
                "arguments": [argument for argument in inspect.signature(value).parameters if argument != "self"],
                "firstresult": value.ralph_spec["firstresult"],
            }
            for name, value in vars(RalphSpec).items()
            if name.startswith("ralph_")
        },
        "public": sorted(public),
        "members": {
            name: {member.name: member.value for member in value}
            for name, value in classes.items()
            if issubclass(value, enum.Enum)
        },
        "fields": {
            name: [field.name for field in dataclasses.fields(value)]
            for name, value in classes.items()
            if dataclasses.is_dataclass(value)
        },
        "methods": {name: methods for name, value in classes.items() if (methods := _methods(value))},
    }


def _methods(cls: type) -> dict[str, list[str]]:
    """The public methods that a class of the contract itself defines, with their arguments."""
    if issubclass(cls, (BaseException, enum.Enum, RalphSpec)):
        return {}
    return {
        name: [argument for argument in inspect.signature(value).parameters if argument != "self"]
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def written() -> str:
    return json.dumps(contract(), indent=1) + "\n"


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(written(), encoding="utf-8")
    print(f"written  {GOLDEN}")
