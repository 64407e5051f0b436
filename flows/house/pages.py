"""Prefect's pages, kept from calling elsewhere: their newer version asks an analytics host from every browser.

No setting turns that off. Prefect copies its pages into a folder when its server starts; a policy in the copy's
``index.html`` lets the browser connect to this server only.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from recognition.settings import home

HEAD = "<head>"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="connect-src \'self\' {api} {websocket}; '
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:\">"
)


def pages_folder() -> Path:
    """Where a house's Prefect server copies its pages to (``PREFECT_UI_STATIC_DIRECTORY``)."""
    folder = home() / "prefect-pages"
    folder.mkdir(exist_ok=True)
    return folder


def keep_pages_to_this_server(api: str) -> None:
    """Write the policy into the pages that the server has copied.

    Args:
        api: the address of the server's API, which the pages may be on another port or host than.
    """
    scheme, host = urlsplit(api)[:2]
    websocket = f"{'wss' if scheme == 'https' else 'ws'}://{host}"
    policy = POLICY.format(api=f"{scheme}://{host}", websocket=websocket)
    for page in pages_folder().glob("v*/index.html"):
        text = page.read_text(encoding="utf-8")
        kept = [line for line in text.splitlines() if "Content-Security-Policy" not in line]
        page.write_text("\n".join(kept).replace(HEAD, f"{HEAD}\n{policy}", 1), encoding="utf-8")
