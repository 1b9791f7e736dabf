"""Whatever happened, in whatever order: in the end Dify has what the portal has, once."""

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.factories import organisation
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.sync.bench import Bench
from tests.knowledge.sync.moves import MOVES, Move, Player, faults_of
from tests.servers import SessionServers

NUMBERS = st.integers(0, 40)
SEQUENCES = st.lists(st.tuples(st.sampled_from(MOVES), NUMBERS, NUMBERS), min_size=4, max_size=24)


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(moves=SEQUENCES)
def test_any_sequence_converges_without_a_twin_or_an_orphan(
    servers: SessionServers, database: None, moves: Sequence[Move]
) -> None:
    with DifyDouble() as double:
        bench = Bench(organisation("converge"), double, servers.url("gateway"))
        player = Player(bench)
        player.play(("add_base", 0, 0))
        player.play(("put_text", 0, 0))
        for move in moves:
            player.play(move)
        double.heal()
        double.knowledge.lose = 0
        bench.settle(look=True)
        bench.settle(look=True)
        assert faults_of(bench) == []
        double.seen.clear()
        bench.run(look=True)
        assert {seen.request.method for seen in double.seen} <= {"GET"}
