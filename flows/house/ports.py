"""Ports that servers are to answer at: free, or refused by name."""

from __future__ import annotations

import socket

import psutil

from recognition.errors import ConfigurationError

THIS_MACHINE = "127.0.0.1"


def refuse_busy(ports: dict[str, int]) -> None:
    """Refuse ports that cannot be opened on this machine.

    Args:
        ports: by the option that sets each.

    Raises:
        ConfigurationError: a port is in use, may not be opened, or is asked for twice; all of them are named.
    """
    if len(set(ports.values())) < len(ports):
        options = " and ".join(ports)
        raise ConfigurationError(f"{options} are both {next(iter(ports.values()))}: each server needs one of its own.")
    mistakes = [mistake for option, port in ports.items() if (mistake := _why_not(option, port))]
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))


def _why_not(option: str, port: int) -> str:
    with socket.socket() as probe:
        # a server on all addresses leaves 127.0.0.1 free to bind on some systems, and would be hidden
        probe.settimeout(1)
        if probe.connect_ex((THIS_MACHINE, port)) == 0:
            return f"{option}: {port} is in use{_by_whom(port)}; choose another."
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((THIS_MACHINE, port))
        except PermissionError:
            return f"{option}: {port} may be opened by an administrator only; choose one above 1023."
        except OSError as error:
            return f"{option}: {port} cannot be opened ({error.strerror}){_by_whom(port)}; choose another."
    return ""


def _by_whom(port: int) -> str:
    """Who listens there, where the system tells."""
    try:
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:  # other users' processes; on some systems all of them
        pass
    return ""
