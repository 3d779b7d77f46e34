"""An audit sink that posts records to a webhook. Queue, batches, retries and losses are Ralph's business."""

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from ralph_core import AuditRecord, AuditSink


class WebhookSettings(BaseModel):
    """Settings of the sink `webhook`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://")
    """Where records are posted to."""
    timeout: float = Field(5.0, gt=0)
    """Seconds that the server has to answer."""
    headers: dict[str, str] = {}
    """What is sent with each request, such as `Authorization`."""


class WebhookSink(AuditSink):
    """One request a batch. Any answer but a 2xx raises, and the same batch comes again."""

    settings: WebhookSettings

    def write(self, batch: Sequence[AuditRecord]) -> None:
        records = [asdict(record) | {"severity": record.severity.name.lower()} for record in batch]
        headers = {"Content-Type": "application/json", **self.settings.headers}
        body = json.dumps({"records": records}, default=str).encode()
        request = urllib.request.Request(self.settings.url, body, headers)
        with urllib.request.urlopen(request, timeout=self.settings.timeout) as answer:
            answer.read()
