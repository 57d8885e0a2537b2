"""`embrief plugins` shows what discovery reports."""

from __future__ import annotations

import json

import pytest

GOOD = "acme_backend,acme_chooser,acme_framework,acme_model"


def command(process, *arguments, sites, plugins=None):
    code = "from embrief.cli import main; main()"
    return process.call("-c", code, "plugins", *arguments, sites=sites, plugins=plugins)


def test_it_lists_third_parties_and_ends_well(process, acme_site):
    done = command(process, "--json", sites=(acme_site,))
    assert done.returncode == 0, done.stderr
    listed = {item["name"]: item for item in json.loads(done.stdout)["plugins"]}
    assert {"embrief_chroma", *GOOD.split(",")} <= set(listed)
    assert listed["acme_model"]["distribution"] == "acme-model"
    assert listed["acme_model"]["version"] == "1.2.3"
    assert listed["acme_model"]["adds"] == ["acme/notes"]
    assert all(item["status"] == "ok" for item in listed.values())


def test_it_shows_broken_ones_beside_those_that_work(process, acme_site, hostile_site):
    sites = (acme_site, hostile_site)
    names = f"{GOOD},embrief_chroma,bad_import_error,bad_system_exit,bad_missing_parent"
    done = command(process, "--json", sites=sites, plugins=names)
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    broken = {(item["name"], item["distribution"]) for item in data["plugins"] if item["status"] != "ok"}
    assert broken == {
        ("bad_import_error", "bad-import-error"),
        ("bad_system_exit", "bad-system-exit"),
        ("embrief_chroma", "bad-stolen-entry-point"),
    }
    assert {"chroma", "acme-search", "bad-framework"} <= {item["name"] for item in data["integrations"]}
    assert {"hash", "acme-hash", "bad-missing-parent"} <= {item["name"] for item in data["backends"]}

    shown = command(process, sites=sites, plugins=names)
    assert shown.returncode == 1, shown.stderr
    assert "a_module_that_nobody_has" in shown.stdout
    assert "already belongs to embrief" in shown.stdout


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("bad_selector_raises", "select_backend failed"),
        ("bad_selector_unknown", "select_backend failed"),
        ("bad_offer_raises", "failed when asked whether it runs"),
    ],
)
def test_what_fails_only_when_it_is_asked_shows_too(process, acme_site, hostile_site, name, problem):
    done = command(process, "--json", sites=(acme_site, hostile_site), plugins=f"{GOOD},{name}")
    broken = [item for item in json.loads(done.stdout)["plugins"] if item["status"] != "ok"]
    assert [item["name"] for item in broken] == [name]
    assert problem in broken[0]["problems"][0]
    assert done.returncode == 1
