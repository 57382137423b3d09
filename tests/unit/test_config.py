"""Settings: where they come from, and one clear sentence for those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow import config
from resizeflow.errors import UsageError


def load(folder: Path, text: str) -> config.Settings:
    path = folder / "resizeflow.conf"
    path.write_text(text)
    return config.load(str(path))


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("[DEFAULT]\ntransfer = pigeon\n", "transfer"),
        ("[DEFAULT]\nbandwidth = -1\n", "bandwidth"),
        ("[DEFAULT]\nbandwidth = wide\n", "bandwidth"),
        ("[DEFAULT]\nshutdown_timeout = -1\n", "shutdown_timeout"),
        ("[DEFAULT]\nstall_timeout = 0\n", "stall_timeout"),
        ("[DEFAULT]\nallow_resize_to_same_host = perhaps\n", "allow_resize_to_same_host"),
        ("[worker]\nlease_seconds = 1\n", "lease_seconds"),
        ("[worker]\nact_timeout = soon\n", "act_timeout"),
        ("[worker]\nmax_attempts = 0\n", "max_attempts"),
        ("[worker]\nfence_window = -3\n", "fence_window"),
        ("[worker]\nserver_events = 8774\n", "server_events"),
        ("[worker]\nserver_events = http://127.0.0.1:8774\n", "server_events"),
        ("[worker]\nmetrics = 9464\n", "metrics"),
        ("[worker]\nmetrics = 127.0.0.1:65536\n", "metrics"),
        ("[worker]\ntraces = sometimes\n", "traces"),
        ("[neutron]\nvif_plugging_timeout = -1\n", "vif_plugging_timeout"),
        ("[quota]\ncores = -2\n", "cores"),
        ("[quota]\nram = much\n", "ram"),
    ],
)
def test_a_bad_value_names_the_file_and_the_option(tmp_path: Path, text: str, option: str) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path, text)
    told = str(error.value)
    assert str(tmp_path / "resizeflow.conf") in told
    assert option in told
    assert "\n" not in told
    assert "LocationInfo" not in told
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("lease", "act", "fence", "fits"),
    [(90, 30, 25, True), (90, 35, 25, False), (82.5, 30, 25, False), (83, 30, 25, True), (6, 2, 1, True)],
)
def test_the_lease_outlives_the_longest_act(tmp_path: Path, lease: float, act: float, fence: float, fits: bool) -> None:
    text = f"[worker]\nlease_seconds = {lease}\nact_timeout = {act}\nfence_window = {fence}\n"
    if fits:
        assert load(tmp_path, text).lease_seconds == lease
        return
    with pytest.raises(UsageError, match=r"too short.*act_timeout \+ fence_window"):
        load(tmp_path, text)


def test_too_short_a_lease_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lease_seconds") as error:
        load(tmp_path, "[worker]\nlease_seconds = 10\n")
    assert "resizeflow.conf" in str(error.value)


def test_defaults_and_units(tmp_path: Path) -> None:
    settings = load(tmp_path, f"[DEFAULT]\nstate_path = {tmp_path}\nbandwidth = 3\n[quota]\ncores = 7\n")
    assert settings.connection == f"sqlite:///{tmp_path}/resizeflow.sqlite"
    assert settings.bandwidth == 3 * 2**20
    assert settings.quota == {"instances": -1, "cores": 7, "ram": -1, "gigabytes": -1}


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tmp_path / "resizeflow" / "resizeflow.conf"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("RESIZEFLOW_CONFIG", raising=False)
    assert config.config_file(None) != usual
    usual.parent.mkdir()
    usual.touch()
    assert config.config_file(None) == usual
    monkeypatch.setenv("RESIZEFLOW_CONFIG", "/named/by/environment")
    assert config.config_file(None) == Path("/named/by/environment")
    assert config.config_file("/given") == Path("/given")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert config.state_path(None) == tmp_path / "resizeflow"
