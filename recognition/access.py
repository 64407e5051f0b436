"""What a run may read: everything for a local command line; on a worker, what its operator allows.

The settings are the worker's own (environment variables), never the experiment's: whoever fills in the form of a
server must not be able to read the worker's files or its private network.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from urllib.request import url2pathname

from recognition.errors import ConfigurationError

ROOTS = "RECOGNITION_ALLOWED_ROOTS"
SCHEMES = "RECOGNITION_ALLOWED_SCHEMES"
HOSTS = "RECOGNITION_ALLOWED_HOSTS"
DEFAULT_SCHEMES = ("http", "https", "s3", "gs", "az", "hf")


@dataclass(frozen=True)
class Access:
    """Which addresses and folders may be read."""

    restricted: bool = False
    """Off: everything may be read."""
    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    """Kinds of address. Of object storage any bucket may be named: which of them open is up to the worker's
    credentials, and the endpoint is the operator's choice (``AWS_ENDPOINT_URL``)."""
    hosts: tuple[str, ...] = ()
    """Hosts (``name``, ``name:port``, ``*.example.org``) that may be reached although their addresses are private;
    other hosts must have public addresses."""
    roots: tuple[Path, ...] = ()
    """Folders below which local files may be read. The state folder is none of them unless it is named."""

    def check_path(self, path: Path) -> None:
        """Refuse a path that, with all links followed, lies in no folder that may be read.

        The message is the same whether the path exists or not.

        Raises:
            ConfigurationError: it may not be read.
        """
        if not self.restricted:
            return
        try:
            real = path.expanduser().resolve()
            if any(real.is_relative_to(root.resolve()) for root in self.roots):
                return
        except (OSError, RuntimeError, ValueError):  # a loop of links, a home that is not there, a NUL
            pass
        raise ConfigurationError(
            f"{str(path)!r} may not be read by this worker. Its operator allows folders, joined by {os.pathsep!r}, in"
            f" the worker's environment: {ROOTS}."
        )

    def check_address(self, address: str) -> None:
        """Refuse an address that may not be read; a file address or a plain path is checked as a path.

        Raises:
            ConfigurationError: it is refused for everybody (`check_form`, `refuse_credentials`), or this worker may not
                read it.
        """
        check_form(address)
        refuse_credentials(address)
        if not self.restricted:
            return
        scheme = _scheme(address)
        if scheme in ("", "file"):
            self.check_path(local_path(address))
            return
        if scheme not in self.schemes:
            raise ConfigurationError(
                f"{redacted(address)}: this worker does not read from {scheme} addresses. Its operator allows kinds of"
                f" address, joined by commas, in the worker's environment: {SCHEMES}."
            )
        if scheme in ("http", "https"):
            self._check_host(address, scheme)

    def check_peer(self, host: str, port: int, peer: str) -> None:
        """Refuse a connection by the address it has really led to, whatever the name resolved to before.

        Raises:
            ConfigurationError: the address is private and the host is not one that may have such.
        """
        if self.restricted and not self._is_listed(host, port) and not is_public(peer):
            raise ConfigurationError(_private(host))

    def _check_host(self, address: str, scheme: str) -> None:
        from requests.utils import get_environ_proxies, select_proxy
        from urllib3.exceptions import LocationParseError
        from urllib3.util import parse_url

        try:  # the parser of the library that will connect: two parsers may see two hosts in one text
            parts = parse_url(address)
        except LocationParseError:
            parts = None
        if parts is None or not parts.host or re.search(r"[\\\s\x00-\x1f\x7f]", address):
            raise ConfigurationError(f"{redacted(address)} is no address that this worker can check.")
        host, port = parts.host, parts.port or (443 if scheme == "https" else 80)
        if self._is_listed(host, port):
            return
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            if select_proxy(address, get_environ_proxies(address, no_proxy=None)):
                raise ConfigurationError(
                    f"{host} cannot be resolved by this worker, so that nothing tells whether it is public. {_LISTED}"
                ) from None
            return  # connecting will fail too; if not, the connection is checked
        if not all(is_public(str(entry[4][0])) for entry in found):
            raise ConfigurationError(_private(host))

    def _is_listed(self, host: str, port: int) -> bool:
        wanted = host.strip("[]").rstrip(".").lower()
        for entry in self.hosts:
            said = (
                re.fullmatch(r"\[?(.+?)\]?(?::(\d+))?", entry.lower()) if entry.count(":") < 2 or "[" in entry else None
            )
            name, number = (said[1], said[2]) if said else (entry.lower(), None)
            if (number is None or int(number) == port) and (
                name == wanted or (name.startswith("*.") and wanted.endswith(name[1:]))
            ):
                return True
        return False


UNRESTRICTED = Access()


def worker_access() -> Access:
    """What the operator of this worker allows, from its environment. A variable that is set but empty allows nothing.

    Raises:
        ConfigurationError: a root is not an absolute path.
    """
    roots = tuple(Path(text).expanduser() for text in os.environ.get(ROOTS, "").split(os.pathsep) if text.strip())
    for root in roots:
        if not root.is_absolute():
            raise ConfigurationError(f"{ROOTS} holds {str(root)!r}, which is no absolute path.")
    return Access(
        restricted=True,
        schemes=_words(os.environ.get(SCHEMES, ",".join(DEFAULT_SCHEMES))),
        hosts=_words(os.environ.get(HOSTS, "")),
        roots=roots,
    )


def is_public(address: str) -> bool:
    """Whether an IP address can be reached by anybody; an IPv4 address inside an IPv6 one counts as itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and (found in _NAT64 or int(found) < 1 << 32):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved and address != _METADATA_OF_AZURE


def check_form(address: str) -> None:
    """Refuse what can be neither an address nor a path.

    Raises:
        ConfigurationError: it holds a NUL, or as an address characters that cannot be sent.
    """
    if "\0" in address or ("://" in address and not _can_be_encoded(address)):
        raise ConfigurationError(f"{redacted(address)!a} holds characters that no address can.")


def refuse_credentials(address: str) -> None:
    """Refuse an address that carries a password or a signature: addresses are recorded with the run.

    Raises:
        ConfigurationError: it does; the message does not repeat it.
    """
    if "://" not in address:
        return
    try:
        parts = urlsplit(address)
    except ValueError:
        raise ConfigurationError(f"{redacted(address)} is no address.") from None
    if "@" in parts.netloc:
        found = "names a user before the host"
    elif name := _credential(parts.query) or _credential(parts.fragment):
        found = f"carries a credential ({name}=…)"
    else:
        return
    raise ConfigurationError(
        f"{redacted(address)} {found}. Addresses are recorded with the run, so credentials come from the environment"
        " alone: AWS_*, GOOGLE_APPLICATION_CREDENTIALS, AZURE_*, or ~/.netrc."
    )


def redacted(address: str) -> str:
    """An address as it may be logged: without user, password, and a query that holds a credential."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{address.partition('://')[0]}://…"
    netloc = f"…@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    query, fragment = ("…" if _credential(text) else text for text in (parts.query, parts.fragment))
    return f"{parts.scheme}://{netloc}{parts.path}{query and '?' + query}{fragment and '#' + fragment}"


def redacted_text(text: str) -> str:
    """A library's message as it may be logged: addresses in it redacted, credentials of the environment taken out."""
    text = re.sub(r"\w+://[^\s'\"<>]+", lambda found: redacted(found[0]), text)
    text = re.sub(r"(with url: [^\s?]*)\?\S*", r"\1?…", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_VARIABLE.fullmatch(name):
            text = text.replace(value, "…")
    return text


def local_path(address: str) -> Path:
    """The path that a file address, or a plain path, means."""
    is_address = address.lower().startswith("file://")
    return Path(url2pathname(urlsplit(address).path) if is_address else address).expanduser()


def _scheme(address: str) -> str:
    """In lower case; empty for a path. ``hf:name`` is the one kind of address without ``//``."""
    scheme, separator, _ = address.partition("://")
    if separator:
        return scheme.lower()
    return "hf" if address.lower().startswith("hf:") else ""


def _credential(query: str) -> str:
    """The name of the first parameter that is a credential, or empty text."""
    for name, value in parse_qsl(query.replace(";", "&")):
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        if plain in _CREDENTIALS or _LIKE_CREDENTIALS.search(plain) or (plain == "key" and value.startswith("AIza")):
            return name
    return ""


def _can_be_encoded(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())


def _private(host: str) -> str:
    return f"{host} is not public, and may not be reached by this worker. {_LISTED}"


_LISTED = f"Its operator allows such hosts, joined by commas, in the worker's environment: {HOSTS}."
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA_OF_AZURE = "168.63.129.16"
"""Public by its number, yet answered by the machine's own host."""
_CREDENTIALS = {"sig", "auth", "authorization", "pwd", "jwt", "sas", "awsaccesskeyid", "googleaccessid", "keypairid"}
_LIKE_CREDENTIALS = re.compile(
    "token|secret|password|passwd|passphrase|signature|credential|(api|access|private|auth|session|account)key"
)
_SECRET_VARIABLE = re.compile(
    r"(AWS|AZURE|GOOGLE|GCS|HF|HUGGING_FACE|MLFLOW|PREFECT)_\w*(KEY|SECRET|TOKEN|PASSWORD|STRING|CREDENTIALS)\w*"
    "|PGPASSWORD|RECOGNITION_WEBHOOK_URL"
)


def _in_any_case(pattern: str) -> str:
    return re.sub("[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", pattern)


ADDRESS_WITH_CREDENTIALS = (
    "://[^/?#]*@"
    f"|[?&;#][^=&;#]*({_in_any_case('token|secret|password|passwd|passphrase|signature|credential')})[^=&;#]*="
    f"|[?&;#][^=&;#]*({_in_any_case('api|access|private|auth|session|account')})[_-]?{_in_any_case('key')}[^=&;#]*="
    f"|[?&;#]({_in_any_case('sig|auth|authorization|pwd|jwt|sas|googleaccessid|key-pair-id')})="
    f"|[?&;#]{_in_any_case('key')}=AIza"
)
"""What `refuse_credentials` refuses, as a pattern of a schema (ECMA 262, which knows no flag for upper case)."""
