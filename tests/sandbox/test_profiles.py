"""Each place where the sandbox has to live gives what it can, says so, and is strong enough."""

import pytest
from profiles import PROFILES

from retool.sandbox import Sandbox, describe_isolation
from retool.sandbox.containment import landlock


def test_what_is_in_force_is_what_the_place_offers(contained: Sandbox, request: pytest.FixtureRequest) -> None:
    expected = PROFILES[request.node.callspec.params["contained"]].isolation
    isolation = contained.isolation
    assert isolation["weak"] is None
    assert isolation["refused"] == ["files", "network", "processes", "signals"]
    assert isolation["seccomp"]
    assert {name: isolation[name] for name in expected} == expected
    assert isolation["landlock"] == expected.get("landlock", landlock.abi())
    assert "WEAK" not in describe_isolation(isolation)


def test_the_uid_is_that_of_no_account_where_root_runs_the_sandbox(contained: Sandbox) -> None:
    uids = {contained.run_blocking("import os; print(os.getuid())").text for _ in range(4)}
    if contained.isolation["uid"] == "one for each slot":
        assert all(int(uid) >= 0x7F000000 for uid in uids)
    else:
        assert uids == {str(contained.isolation["uid"])}
