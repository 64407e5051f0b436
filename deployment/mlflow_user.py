"""Make a user of MLflow's log-in, as its admin: ``python deployment/mlflow_user.py NAME``.

The address and the admin's log-in come from the environment (MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME,
MLFLOW_TRACKING_PASSWORD), the new user's password from the terminal, or from standard input in a script.
"""

from __future__ import annotations

import getpass
import os
import sys

from mlflow.server import get_app_client

name = sys.argv[1]
password = getpass.getpass(f"Password of {name}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"]).create_user(name, password)
print(f"{name} can log in")
