"""Questions to the servers that a command names: which one answers, which leader is followed, and how long is tried."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import ask
from lockring.errors import LastNode, LockringError, NotCoordinator, ProtocolError, Unavailable
from lockring.net.oneshot import Dial

A, B, C = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"


def unreachable(server: str) -> Unavailable:
    error = Unavailable(f"{server} cannot be reached: connection refused")
    error.__cause__ = ConnectionRefusedError()
    return error


def settings(*servers: str, timeout_s: float = 5.0) -> ClientSettings:
    return ClientSettings(servers=servers, connect_timeout_s=timeout_s)


class Servers:
    """Answers questions by a rule, given the server and how often it was asked before."""

    def __init__(self, rule: Callable[[str, int], str | LockringError]) -> None:
        self.asked: list[str] = []
        self._rule = rule

    def __call__(self, dial: Dial, server: str, timeout_s: float) -> str:
        answer = self._rule(server, self.asked.count(server))
        self.asked.append(server)
        if isinstance(answer, LockringError):
            raise answer
        return answer


def test_the_first_server_that_answers_is_enough() -> None:
    servers = Servers(lambda server, _: unreachable(server) if server == A else "yes")
    assert ask(settings(A, B, C), servers) == "yes"
    assert servers.asked == [A, B]


def test_the_refusal_of_a_server_is_passed_on_as_it_is() -> None:
    refusal = ProtocolError("this port is for nodes")
    with pytest.raises(ProtocolError) as caught:
        ask(settings(A, timeout_s=0), Servers(lambda server, _: refusal))
    assert caught.value is refusal


def test_the_leader_that_a_standby_names_is_asked_too() -> None:
    servers = Servers(lambda server, _: "yes" if server == C else NotCoordinator("no", leader=C))
    assert ask(settings(A, B), servers) == "yes"
    assert servers.asked == [A, B, C]


@pytest.mark.parametrize(
    "error",
    [NotCoordinator("no coordinator leads", leader=B), Unavailable("the coordinator went away")],
)
def test_servers_are_asked_again_while_the_leader_changes(error: LockringError) -> None:
    servers = Servers(
        lambda server, before: unreachable(server) if server == B else ("yes" if before else error)
    )
    assert ask(settings(A, B), servers) == "yes"
    assert servers.asked == [A, B, A]


def test_a_leader_that_is_not_found_in_time_is_reported_as_a_standby_says_it() -> None:
    servers = Servers(lambda server, _: unreachable(server) if server == B else NotCoordinator("A stands by"))
    began_s = time.monotonic()
    with pytest.raises(NotCoordinator, match="A stands by"):
        ask(settings(A, B, timeout_s=0.3), servers)
    assert time.monotonic() - began_s >= 0.3


def test_servers_that_are_not_there_are_asked_once() -> None:
    servers = Servers(lambda server, _: unreachable(server))
    with pytest.raises(Unavailable, match=r"no server answers: .*:1 cannot be reached.*:2 cannot be reached"):
        ask(settings(A, B), servers)
    assert servers.asked == [A, B]


def test_a_refusal_is_an_answer() -> None:
    servers = Servers(lambda server, _: LastNode("the last one"))
    with pytest.raises(LastNode):
        ask(settings(A, B), servers)
    assert servers.asked == [A]


def test_an_answer_that_a_server_cannot_at_present_casts_no_doubt_on_its_address() -> None:
    servers = Servers(lambda server, _: Unavailable("the coordinator cannot be asked"))
    with pytest.raises(Unavailable) as caught:
        ask(settings(A, timeout_s=0), servers)
    assert str(caught.value) == "the coordinator cannot be asked"
    servers = Servers(lambda server, _: unreachable(server) if server == A else Unavailable("not now"))
    with pytest.raises(Unavailable) as caught:
        ask(settings(A, B, timeout_s=0), servers)
    assert str(caught.value) == f"{A} cannot be reached: connection refused; not now"


def test_a_server_that_greeted_and_then_kept_silent_has_the_right_address() -> None:
    silent = Unavailable(f"{A} did not answer within 1 s", reason="silent")
    silent.__cause__ = TimeoutError()
    with pytest.raises(Unavailable) as caught:
        ask(settings(A), Servers(lambda server, _: silent))
    assert str(caught.value) == f"{A} did not answer within 1 s"
