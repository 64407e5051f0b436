"""Short questions to a Prefect server, for processes that do without Prefect's own client (3 s of imports)."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import Any

import requests

from recognition.errors import TrackingError
from recognition.server_versions import misfit

SECONDS_TO_ANSWER = 5.0
CLOUD = "https://api.prefect.cloud/"


@dataclass(frozen=True)
class PrefectServer:
    """Where a server's API answers, and what it is asked with."""

    api: str
    """Such as http://127.0.0.1:4200/api."""
    auth_string: str = ""
    """``user:password`` of its basic authentication."""
    key: str = ""
    """Of Prefect Cloud."""
    verify: bool | str = True
    """Whether its certificate is checked, or the file of certificates to check it by."""

    @classmethod
    def of_environment(cls, api: str) -> PrefectServer:
        """With the credentials of the environment; those of Prefect's profiles are not seen."""
        return cls(
            api=api.rstrip("/"),
            auth_string=os.environ.get("PREFECT_API_AUTH_STRING", ""),
            key=os.environ.get("PREFECT_API_KEY", ""),
            verify=os.environ.get("PREFECT_API_SSL_CERT_FILE", True),
        )

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that is answered: to a GET, or with a body to a POST.

        Raises:
            requests.RequestException: no answer within 5 seconds, or an answer that is no success.
        """
        answer = self._request(path, body)
        answer.raise_for_status()
        return answer.json()

    def check(self) -> str:
        """Its version, after it has answered, accepted the credentials, and turned out to suit ours.

        Raises:
            TrackingError: one of these is not so.
        """
        try:
            answer = self._request("health")
            if answer.ok and not self.api.startswith(CLOUD):
                answer = self._request("admin/version")
        except requests.RequestException as error:
            raise TrackingError(
                f"The Prefect server {self.api} does not answer ({type(error).__name__}). Start it with `recognition "
                "up` or `prefect server start`, or unset PREFECT_API_URL for a temporary one."
            ) from None
        if answer.status_code in (401, 403):
            raise TrackingError(
                f"The Prefect server {self.api} refuses the credentials ({answer.status_code}): give user:password in "
                "PREFECT_API_AUTH_STRING, or the key of Prefect Cloud in PREFECT_API_KEY."
            )
        version = _text(answer)
        if not answer.ok or version is None:
            raise TrackingError(
                f"{self.api} is no Prefect API (status {answer.status_code}): PREFECT_API_URL is the address of its "
                "API, such as http://127.0.0.1:4200/api."
            )
        why_not = "" if self.api.startswith(CLOUD) else misfit("prefect", version)
        if why_not:
            raise TrackingError(
                f"The Prefect server {self.api} {why_not}. Upgrade it, or name another in PREFECT_API_URL."
            )
        return version

    def _request(self, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        headers = {}
        if self.auth_string:
            headers["Authorization"] = "Basic " + base64.b64encode(self.auth_string.encode()).decode()
        elif self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return requests.request(
            "GET" if body is None else "POST",
            f"{self.api}/{path}",
            json=body,
            headers=headers,
            verify=self.verify,
            timeout=SECONDS_TO_ANSWER,
        )


def _text(answer: requests.Response) -> str | None:
    """The JSON text or truth that Prefect answers to these questions; pages and other JSON are none."""
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return None
    return str(content) if isinstance(content, str | bool) else None
