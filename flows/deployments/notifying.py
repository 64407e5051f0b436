"""Where automations send their messages: a Prefect block that is there, or one made for an address."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from recognition.errors import ConfigurationError

VARIABLE = "RECOGNITION_WEBHOOK_URL"
"""An address in the environment is neither in a shell's history nor in the list of processes."""
BLOCK = "recognition"
"""The name of the block that is made for an address."""
PLAIN = "webhook"
"""The type of block that is sent JSON; all others are told a subject and a body."""


@dataclass(frozen=True)
class Recipient:
    """A block, by its id and type."""

    block: UUID
    kind: str

    def told(self, subject: str, body: str) -> CallWebhook | SendNotification:
        """An automation's action that sends a message.

        Args:
            subject: a Jinja template, one line.
            body: a Jinja template.
        """
        if self.kind != PLAIN:
            return SendNotification(block_document_id=self.block, subject=subject, body=body)
        # "text" is what chat programs show
        fields = {"subject": "subject", "body": "body", "text": "subject ~ '\\n' ~ body"}
        content = ", ".join(f"{json.dumps(name)}: {{{{ ({value}) | tojson }}}}" for name, value in fields.items())
        payload = f"{{% set subject %}}{subject}{{% endset %}}{{% set body %}}{body}{{% endset %}}{{{content}}}"
        return CallWebhook(block_document_id=self.block, payload=payload)


def recipient(client: SyncPrefectClient, notify: str, webhook: str) -> Recipient | None:
    """Whom automations tell; none where nobody is named.

    Args:
        client: of the Prefect server.
        notify: a block that is there, as ``type/name``.
        webhook: an address that a block is made for; empty: that of the environment.

    Raises:
        ConfigurationError: both are given, the block is not there or cannot notify, or the address is none. No message
            holds the address: it may be a secret.
    """
    address = webhook or ("" if notify else os.environ.get(VARIABLE, ""))
    if notify and webhook:
        raise ConfigurationError("--notify names a block and --webhook makes one: give one of them.")
    if address:
        return _made_for(address)
    return _found(client, notify) if notify else None


def _found(client: SyncPrefectClient, notify: str) -> Recipient:
    kind, _, name = notify.partition("/")
    if not kind or not name:
        raise ConfigurationError(f"--notify {notify!r}: name a block as type/name, such as slack-webhook/team.")
    try:
        found = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        raise ConfigurationError(
            f"There is no block {notify} on this Prefect server: `prefect block ls` lists those that are, and the page "
            "Blocks makes one."
        ) from error
    capabilities = found.block_schema.capabilities if found.block_schema else []
    if kind != PLAIN and "notify" not in capabilities:
        raise ConfigurationError(
            f"The block {notify} cannot notify anybody: name one of type {PLAIN}, custom-webhook, slack-webhook, "
            "mattermost-webhook, ms-teams-webhook, discord-webhook, sendgrid-email, opsgenie-webhook, "
            "pager-duty-webhook or twilio-sms."
        )
    return Recipient(found.id, kind)


def _made_for(address: str) -> Recipient:
    try:
        parts = urlsplit(address)
    except ValueError:
        raise ConfigurationError(f"The address of --webhook, or of {VARIABLE}, cannot be read.") from None
    by_apprise = parts.scheme in ("mailto", "mailtos") or parts.hostname in ("hooks.slack.com", "hooks.slack-gov.com")
    if not by_apprise and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ConfigurationError(
            f"The address of --webhook, or of {VARIABLE}, is none: it begins with https://, http://, mailto:// or "
            "mailtos://."
        )
    if not by_apprise:
        headers = SecretDict({"Content-Type": "application/json"})
        return Recipient(_saved(Webhook(url=SecretStr(address), headers=headers)), PLAIN)
    _check_by_apprise(address)
    # Prefect has no block for mail by SMTP, but hands the address of this one to Apprise, which speaks it
    return Recipient(_saved(SlackWebhook(url=SecretStr(address))), "slack-webhook")


def _saved(block: Block) -> UUID:
    document = block.save(BLOCK, overwrite=True)
    assert isinstance(document, UUID)  # no coroutine, where no event loop runs
    return document


def _check_by_apprise(address: str) -> None:
    from apprise import Apprise

    # it would print what it cannot read
    logger = logging.getLogger("apprise")
    logger.disabled = True
    try:
        if not Apprise().add(address):
            raise ConfigurationError(
                f"The address of --webhook, or of {VARIABLE}, is incomplete: Slack's are "
                "https://hooks.slack.com/services/A/B/C, those of mail "
                "mailtos://USER:PASSWORD@SMTP-HOST?from=ADDRESS&to=ADDRESS."
            )
    finally:
        logger.disabled = False
