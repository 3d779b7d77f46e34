"""The plugin `office-hours`. Imported by every `ralph` command, so what is heavy is in a module that is imported when it is used."""

from ralph_core import LimitPolicy, Provider, hookimpl


@hookimpl
def ralph_limit_policies() -> list[Provider[LimitPolicy]]:
    return [
        Provider(
            "office_hours",
            "waits in office hours",
            "ralph_office_hours.policy:OfficeHoursPolicy",
            "ralph_office_hours.policy:OfficeHours",
        )
    ]
