"""When the stores of devices have uploaded, by which two boards under one id are known."""

from ledgers import close, entry

from broker.ledger.protocol import Ledger


def test_stores_are_told_by_device_with_their_first_and_newest_frame(ledger: Ledger) -> None:
    ledger.admit([entry(0, device="a"), entry(0, device="b", epoch=1)], 10.0)
    ledger.admit([entry(0, device="b", epoch=2)], 20.0)
    ledger.admit([entry(1, device="b", epoch=1)], 30.0)
    assert {name: sorted(spans) for name, spans in ledger.stores("t").items()} == {
        "a": [(10.0, 10.0)],
        "b": [(10.0, 30.0), (20.0, 20.0)],
    }
    assert ledger.stores("t", "a") == {"a": [(10.0, 10.0)]}
    assert ledger.stores("t", "nobody") == ledger.stores("other") == {}
    assert sorted(ledger.device("t", "b").stores) == [(10.0, 30.0), (20.0, 20.0)]


def test_what_has_folded_is_still_known_while_its_contribution_is(ledger: Ledger) -> None:
    ledger.admit([entry(i) for i in range(300)], 10.0)
    close(ledger, 1)
    assert ledger.compact("t", before_batch=0, before_base=0)
    assert ledger.stores("t", "d") == {"d": [(10.0, 10.0)]}
