"""What a sending task does where posting itself is at fault. Everything else about it: test_sender.py."""

import asyncio
from collections import deque

import structlog

from mailing import db
from mailing.background_log import BackgroundLog
from mailing.breaker import TOLERANCE
from mailing.exchange import Exchange
from mailing.gateway import open_gateway
from mailing.posting import Posting
from tests.builders import an_open_campaign, states


def test_a_message_that_is_about_to_be_posted_is_known_at_every_moment(connection, gateway):
    """The exchange asks from another thread, after it has lost its connection: what is not known goes back."""
    campaign_id, [batch] = an_open_campaign(connection, clients=3)
    exchange = Exchange(campaign_id, batch, db.connect, BackgroundLog(structlog.get_logger()), is_probe=False)
    exchange.begin()
    known = []

    class Watched(deque):
        def popleft(self):
            taken = super().popleft()
            known.append(posting.known)
            return taken

    posting = Posting(exchange, BackgroundLog(structlog.get_logger()))
    posting.ready = Watched()

    async def post():
        async with open_gateway(exchange.terms) as opened:
            posting.limit = 3
            posting.take(exchange.write([], posting.met, 3, 0))
            posting.set_to_work(opened)
            while posting.held:
                posting.news.clear()
                await posting.news.wait()
            await posting.abandon()

    asyncio.run(post())
    exchange.end([outcome for _, outcome in posting.outcomes], clean=True)
    assert len(known) == 3
    assert all(len(set(ids)) == 3 for ids in known)
    assert states(connection, campaign_id) == {"sent": 3}


def test_a_fault_of_ours_that_meets_each_message_does_not_put_the_whole_audience_in_doubt(connection, gateway):
    """A closed session fails as nothing does that a gateway or a network can do."""
    campaign_id, [batch] = an_open_campaign(connection, clients=3 * TOLERANCE)
    log = BackgroundLog(structlog.get_logger())
    exchange = Exchange(campaign_id, batch, db.connect, log, is_probe=False)
    exchange.begin()

    async def post_through_a_closed_session():
        async with open_gateway(exchange.terms) as closed:
            pass
        posting = Posting(exchange, log)
        posting.limit = TOLERANCE
        posting.take(exchange.write([], posting.met, TOLERANCE, 0))
        posting.set_to_work(closed)
        await posting.news.wait()
        granted = exchange.write(posting.outcomes, posting.met, TOLERANCE, 0)
        await posting.abandon()
        return granted.claims

    assert asyncio.run(post_through_a_closed_session()) == []
    exchange.end([], clean=True)
    log.close()
    assert states(connection, campaign_id) == {"unknown": TOLERANCE, "pending": 2 * TOLERANCE}
    breaker = connection.execute("SELECT breaker_state, breaker_reason FROM gateways").fetchone()
    assert breaker == {"breaker_state": "open", "breaker_reason": "unforeseen"}
    assert not gateway.counts()
