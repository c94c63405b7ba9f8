"""Turns of clients and classes of priority at the device: proportional, never starving, and not to be had by flooding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.jobs import BatchItem, Flow, Item, Job
from runtime.scheduling.fair_queue import FairQueue
from runtime.shares import WEIGHTS, Account, Shares
from runtime.tensors import Array

ITEM_PX = 1024
LARGEST_PX = 4096


class Runner:
    """Never runs: only its batch length counts here."""

    def __init__(self, max_batch: int = 1) -> None:
        self.max_batch = max_batch

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError


def job(runner: Runner, account: Account, pixels: list[int]) -> Job:
    items = [Item("shape", size) for size in pixels]
    return Job(
        runner, items, inputs=lambda index: {}, deliver=lambda index, outputs: None, flow=Flow(account)
    )


def items_of(queue: FairQueue) -> list[BatchItem]:
    taken = queue.take(lambda engine, way: engine)
    return taken[1] if taken else []


def take(queue: FairQueue) -> list[Account]:
    return [item.job.flow.account for item in items_of(queue)]


def test_a_flood_of_one_client_does_not_delay_another() -> None:
    queue, runner = FairQueue(), Runner(max_batch=4)
    for _ in range(500):
        queue.add(job(runner, Account("flood"), [ITEM_PX]))
    for _ in range(10):
        take(queue)
    queue.add(job(runner, Account("other"), [ITEM_PX]))
    assert Account("other") in take(queue)


def test_a_client_that_sends_one_after_the_other_gets_half_beside_a_flood() -> None:
    queue, runner = FairQueue(), Runner()
    for _ in range(500):
        queue.add(job(runner, Account("flood"), [ITEM_PX]))
    served = Counter[Account]()
    for _ in range(100):
        if not any(waiting.flow.account.client == "other" for waiting in queue):
            queue.add(job(runner, Account("other"), [ITEM_PX]))
        served.update(take(queue))
    assert abs(served[Account("other")] - 50) <= 1


def test_interactive_requests_get_eight_turns_for_each_of_a_batch_request() -> None:
    queue, runner = FairQueue(), Runner()
    accounts: list[Account] = [Account("a"), Account("b"), Account("c", "batch"), Account("d", "batch")]
    for account in accounts:
        queue.add(job(runner, account, [ITEM_PX] * 1000))
    served = Counter(account for _ in range(900) for account in take(queue))
    assert [served[account] for account in accounts] == [400, 400, 50, 50]


def test_an_account_that_was_idle_has_saved_up_nothing() -> None:
    queue, runner = FairQueue(), Runner()
    queue.add(job(runner, Account("late", "batch"), [ITEM_PX]))
    take(queue)
    queue.add(job(runner, Account("busy", "batch"), [ITEM_PX] * 1000))
    for _ in range(100):
        take(queue)
    queue.add(job(runner, Account("late", "batch"), [ITEM_PX] * 1000))
    served = Counter(account.client for _ in range(100) for account in take(queue))
    assert abs(served["late"] - 50) <= 1


def test_a_poster_that_pauses_between_its_bands_keeps_its_turns() -> None:
    """Its next band comes a little later than the last item of the one before was taken."""
    queue, runner = FairQueue(), Runner()
    poster = job(runner, Account(), [ITEM_PX] * 100)
    queue.add(poster)
    for _ in range(100):
        take(queue)
    band = job(runner, Account(), [ITEM_PX] * 100)
    band.flow = poster.flow
    queue.add(job(runner, Account(), [ITEM_PX] * 1000))
    queue.add(band)
    served = Counter(item.job.flow is poster.flow for _ in range(100) for item in items_of(queue))
    assert served[True] >= 49


accounts = st.builds(
    Account, st.sampled_from("abc"), st.sampled_from(["interactive", "batch"]), st.sampled_from("12")
)
sizes = st.lists(st.integers(1, LARGEST_PX), min_size=1, max_size=3)


@given(st.dictionaries(accounts, sizes, min_size=2), st.integers(1, 200))
@settings(max_examples=60)
def test_nobody_who_waits_falls_behind_by_more_than_a_turn(
    waiting: dict[Account, list[int]], turns: int
) -> None:
    """Of any two that wait all the time, in pixels by weight (Goyal et al. 1996, theorem 1). Their sizes repeat."""
    shares, served, taken = Shares(), Counter[Account](), Counter[Account]()
    for account in waiting:
        shares.begin(account)
    for _ in range(turns):
        account = min(waiting, key=shares.place)
        pixels = waiting[account][taken[account] % len(waiting[account])]
        shares.begin(account)
        shares.serve(account, pixels)
        shares.end(account)
        served[account] += pixels
        taken[account] += 1
    by_path = Counter[tuple[str, ...]]()
    for account in waiting:
        for depth in (1, 2, 3):
            by_path[account.path[:depth]] += served[account]
    for path, pixels in by_path.items():
        for sibling, others in by_path.items():
            if len(path) == len(sibling) and path[:-1] == sibling[:-1]:
                weight, other = (WEIGHTS[end[0]] if len(end) == 1 else 1.0 for end in (path, sibling))  # type: ignore[index]
                assert abs(pixels / weight - others / other) <= LARGEST_PX / weight + LARGEST_PX / other


@given(st.lists(st.tuples(accounts, sizes), min_size=1, max_size=40), st.integers(1, 6))
@settings(max_examples=60)
def test_every_item_is_taken_once_whoever_comes_when(
    arrivals: list[tuple[Account, list[int]]], max_batch: int
) -> None:
    queue, runner = FairQueue(), Runner(max_batch)
    served_px = 0
    for account, pixels in arrivals:
        queue.add(job(runner, account, pixels))
        served_px += sum(item.pixels for item in items_of(queue))
    while len(queue):
        served_px += sum(item.pixels for item in items_of(queue))
    assert served_px == sum(sum(pixels) for _, pixels in arrivals)
    assert queue._shares._root.children == {}
    assert queue._times == {}


def test_connections_of_a_client_share_its_turns() -> None:
    queue, runner = FairQueue(), Runner()
    many = [Account("many", connection=str(number)) for number in range(9)]
    for account in (*many, Account("one", connection="0")):
        queue.add(job(runner, account, [ITEM_PX] * 1000))
    served = Counter(account for _ in range(180) for account in take(queue))
    assert served[Account("one", connection="0")] == 90
    assert [served[account] for account in many] == [10] * 9
