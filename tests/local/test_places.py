"""Where the process is: a folder that only the user can change, a name per environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from embrief.errors import LocalProcessError
from embrief.local import client, places
from embrief.local.service import Service

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither owners nor modes of this kind")


def name(**variables: str) -> str:
    return places.environment_name({"HOME": "/home/a", "TERM": "xterm", **variables})


@pytest.mark.parametrize(
    "variable",
    [
        "EMBRIEF_CONFIG",
        "EMBRIEF_DEVICE",
        "HF_HOME",
        "HF_TOKEN",
        "HOME",
        "OPENAI_API_KEY",
        "https_proxy",
        "OLLAMA_HOST",
        "PYTHONPATH",
        "X_TOKEN",
    ],
)
def test_what_changes_answers_changes_the_name(variable):
    assert len({name(), name(**{variable: "/x"}), name(**{variable: "/y"})}) == 3


@pytest.mark.parametrize("variable", ["TERM", "PWD", "COLUMNS", "SSH_TTY", "EMBRIEF_DAEMON_IDLE", "VSCODE_IPC_TOKEN"])
def test_what_differs_between_terminals_does_not(variable):
    assert name(**{variable: "something"}) == name()


def test_another_version_or_installation_has_another_name(monkeypatch):
    first = name()
    monkeypatch.setattr("embrief.__version__", "9.9.9")
    second = name()
    monkeypatch.setattr(sys, "prefix", "/elsewhere")
    assert len({first, second, name()}) == 3


def damage_mode(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o750)


def damage_link(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir(mode=0o700)
    folder.symlink_to(other)


def damage_file(folder: Path) -> None:
    folder.write_text("")


@POSIX
@pytest.mark.parametrize(
    ("damage", "message"),
    [(damage_mode, r"mode 0750.*chmod 700"), (damage_link, "link or a file"), (damage_file, "link or a file")],
)
def test_a_folder_that_others_may_change_is_refused_on_both_sides(folder, damage, message):
    damage(folder)
    with pytest.raises(LocalProcessError, match=message if damage is not damage_file else "cannot be made"):
        Service(lambda _: 0).start()
    with pytest.raises(LocalProcessError, match=message):
        client.reach(places.own_place())


@POSIX
def test_a_folder_of_another_user_is_refused_on_both_sides(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(LocalProcessError, match="another user"):
        Service(lambda _: 0).start()
    with pytest.raises(LocalProcessError, match="another user"):
        client.reach(places.own_place())


@POSIX
def test_what_a_user_types_goes_on_with_a_warning(folder, capsys):
    damage_mode(folder)
    assert client.forward(["search", "x"]) is None
    assert capsys.readouterr().err.startswith("warning: ")


@POSIX
def test_a_file_in_the_place_of_the_socket_is_refused(folder):
    folder.mkdir(mode=0o700)
    places.own_place().socket.write_text("")
    with pytest.raises(LocalProcessError, match="not a socket of yours"):
        client.reach(places.own_place())


def test_without_a_folder_nothing_is_said_and_nothing_made(folder, capsys):
    assert client.forward(["search", "x"]) is None
    assert not folder.exists()
    assert capsys.readouterr().err == ""


@POSIX
def test_the_path_fits_into_a_socket_address(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "long/" * 30)
    place = places.own_place()
    assert place.folder == Path(f"/tmp/embrief-{os.geteuid()}")
    assert len(os.fsencode(place.socket)) <= 103
    room = 103 - len("//embrief/.sock") - 16
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * room)
    assert len(os.fsencode(places.own_place().socket)) == 103
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * (room + 1))
    assert places.own_place().folder == place.folder


@POSIX
def test_without_a_runtime_folder_it_is_in_the_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    if sys.platform != "darwin":
        assert places.own_place().folder == Path("/c/embrief/run")


@POSIX
def test_what_is_made_is_for_the_user_alone(folder, serving):
    old = os.umask(0)
    try:
        with serving(lambda _: 0) as service:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert service.place.socket.stat().st_mode & 0o777 == 0o600
            assert service.place.lock.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)
