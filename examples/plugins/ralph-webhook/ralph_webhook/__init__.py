"""The plugin `webhook`. Imported by every `ralph` command, so what is heavy is in modules that are imported when they are used."""

from ralph_core import AuditSink, Provider, hookimpl


@hookimpl
def ralph_audit_sinks() -> list[Provider[AuditSink]]:
    name = "webhook"
    return [
        Provider(name, "posts records as JSON", "ralph_webhook.sink:WebhookSink", "ralph_webhook.sink:WebhookSettings")
    ]
