"""Settings of the libraries below us, made before they are imported.

A user who has configured Prefect keeps that configuration; everybody else gets an embedded
server that sends nothing anywhere and leaves no ``~/.prefect`` behind.
"""

from __future__ import annotations

import os
from pathlib import Path

CONFIGURED_BY = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILES_PATH", "PREFECT_PROFILE")

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    # The first start on a slow machine takes up to 25 s, on one that does ten other things
    # minutes; Prefect gives up after 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def prepare() -> None:
    """Set the defaults that are not set yet; call it before Prefect is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not prefect_is_configured():
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        home = cache / "tiltflow" / "prefect"
        home.mkdir(parents=True, exist_ok=True)  # Prefect's database needs the folder
        os.environ["PREFECT_HOME"] = str(home)


def prefect_is_configured() -> bool:
    """Tell whether the user has set Prefect up, by the environment or a profile."""
    if any(os.environ.get(name) for name in CONFIGURED_BY):
        return True
    return (Path.home() / ".prefect" / "profiles.toml").exists()
