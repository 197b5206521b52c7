"""The acts that a node reports for the audit log."""

from __future__ import annotations

from lockring.core.effects import AuditEntry
from lockring.protocol import Break, GrantReply
from lockring.units import NS_PER_S
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Client, Nodes


def served(*, audits: bool = True) -> Nodes:
    nodes = Nodes("A", audits=audits)
    nodes.assign("A")
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


def acts(nodes: Nodes) -> list[tuple[str, str, str, str]]:
    """Act, identity, name and reason of each entry, which are then forgotten."""
    found, nodes.audited[:] = list(nodes.audited), []
    return [
        (each.act, "" if each.identity is None else each.identity.name, each.name, each.reason)
        for each in found
    ]


def web(nodes: Nodes, session: str = "s") -> Client:
    return nodes.client("A", session, access=grantee("web-1", "acquire *", "break *"))


def test_a_grant_and_a_release_name_the_identity_the_token_and_the_rule() -> None:
    nodes = served()
    client = web(nodes)
    (grant,) = client.acquire("x", 1)
    assert isinstance(grant, GrantReply)
    (entry,) = nodes.audited
    assert entry == AuditEntry(
        "acquire",
        "ok",
        connection=client.connection,  # type: ignore[arg-type]
        identity=grantee("web-1").identity,
        name="x",
        fencing_token=grant.generation,
        right="acquire",
        rule="acquire *",
    )
    nodes.audited.clear()
    client.release("x", 1)
    (entry,) = nodes.audited
    assert (entry.act, entry.name, entry.fencing_token, entry.reason) == (
        "release",
        "x",
        grant.generation,
        "",
    )


def test_a_wait_is_audited_once_it_is_granted() -> None:
    nodes = served()
    holder, waiter = web(nodes), web(nodes, "t")
    holder.acquire("x", 1)
    acts(nodes)
    waiter.acquire("x", 1)
    assert acts(nodes) == []
    holder.release("x", 1)
    assert acts(nodes) == [("release", "web-1", "x", ""), ("acquire", "web-1", "x", "")]


def test_a_lock_whose_lease_runs_out_is_audited_as_lost() -> None:
    nodes = served()
    web(nodes).acquire("x", 1)
    acts(nodes)
    nodes.advance(60 * NS_PER_S)
    assert acts(nodes) == [("lost", "web-1", "x", "expired")]


def test_a_broken_lease_is_audited_and_so_is_the_loss() -> None:
    nodes = served()
    (grant,) = web(nodes).acquire("x", 1)
    assert isinstance(grant, GrantReply)
    acts(nodes)
    operator = nodes.client("A", "op", access=grantee("op", "break x"))
    operator.ask(Break(5, "x", grant.generation, force=True))
    assert [(each.act, each.right, each.rule) for each in nodes.audited] == [
        ("break", "break", "break x"),
        ("lost", "", ""),
    ]
    assert acts(nodes) == [("break", "op", "x", ""), ("lost", "web-1", "x", "broken")]


def test_acts_are_audited_without_identities_too() -> None:
    nodes = served()
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    client.release("x", 1)
    assert acts(nodes) == [("acquire", "", "x", ""), ("release", "", "x", "")]


def test_without_an_audit_log_nothing_is_reported() -> None:
    nodes = served(audits=False)
    client = web(nodes)
    client.acquire("x", 1)
    client.release("x", 1)
    assert nodes.audited == []
