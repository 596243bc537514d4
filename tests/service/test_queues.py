"""The bounded queue, and what is done together."""

import asyncio
import threading
import time

import pytest

from rw_keras.service.batches import Batches
from rw_keras.service.gate import Gate
from rw_keras.service.problems import ProblemError


class TestGate:
    def test_so_many_work_and_so_many_wait(self):
        async def run():
            gate, order = Gate(2, 2), []

            async def one(number):
                await gate.enter()
                order.append(number)
                await asyncio.sleep(0.01)
                gate.leave()

            tasks = [asyncio.ensure_future(one(number)) for number in range(5)]
            await asyncio.sleep(0)
            waiting = gate.length
            found = await asyncio.gather(*tasks, return_exceptions=True)
            return order, waiting, found, gate

        order, waiting, found, gate = asyncio.run(run())
        assert (order, waiting, gate.length) == ([0, 1, 2, 3], 2, 0)
        assert (found[4].status, found[4].headers) == (429, {"Retry-After": "1"})

    def test_who_waits_in_vain_makes_room(self):
        async def run():
            gate = Gate(1, 1)
            await gate.enter()
            waiting = asyncio.ensure_future(gate.enter())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            next_one = asyncio.ensure_future(gate.enter())
            await asyncio.sleep(0)
            gate.leave()
            await asyncio.wait_for(next_one, 1)

        asyncio.run(run())

    def test_a_turn_that_comes_as_one_gives_up_is_handed_on(self):
        async def run():
            gate = Gate(1, 2)
            await gate.enter()
            gives_up, stays = (asyncio.ensure_future(gate.enter()) for _ in range(2))
            await asyncio.sleep(0)
            gate.leave()
            gives_up.cancel()
            await asyncio.gather(gives_up, return_exceptions=True)
            await asyncio.wait_for(stays, 1)

        asyncio.run(run())

    def test_closing(self):
        async def run():
            gate = Gate(1, 5)
            await gate.enter()
            waiting = [asyncio.ensure_future(gate.enter()) for _ in range(3)]
            await asyncio.sleep(0)
            gate.close()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            with pytest.raises(ProblemError, match="stopping"):
                await gate.enter()
            gate.leave()
            return found

        found = asyncio.run(run())
        assert [error.status for error in found] == [503] * 3
        assert {error.headers["Retry-After"] for error in found} == {"5"}


class TestBatches:
    @pytest.fixture
    def batches(self):
        """A function (run, most) -> `Batches`, closed in the end."""
        made = []

        def make(run, most=lambda key: 8, threads=1):
            made.append(Batches(run, most, "tested", threads))
            return made[-1]

        yield make
        for one in made:
            one.close()

    def held(self, batches, most=8):
        """`Batches` whose thread waits, what lets it go on, and the batches that it did."""
        goes_on, done = threading.Event(), []

        def run(key, items):
            goes_on.wait(10)
            done.append((key, items))
            return [item * 2 for item in items]

        return batches(run, lambda key: most), goes_on, done

    def test_what_is_alike_goes_together(self, batches):
        queue, goes_on, done = self.held(batches)
        first = queue.submit("a", 0)
        while queue._waiting:
            time.sleep(0.001)
        rest = [queue.submit(key, number) for number, key in enumerate("abaab", 1)]
        goes_on.set()
        assert [future.result(10).value for future in [first, *rest]] == [0, 2, 4, 6, 8, 10]
        assert done == [("a", [0]), ("a", [1, 3, 4]), ("b", [2, 5])]
        assert [future.result().together for future in rest] == [3, 2, 3, 3, 2]

    def test_no_more_than_so_many(self, batches):
        queue, goes_on, done = self.held(batches, most=2)
        futures = [queue.submit("a", number) for number in range(5)]
        goes_on.set()
        assert [future.result(10).value for future in futures] == [0, 2, 4, 6, 8]
        assert max(len(items) for _, items in done) == 2

    def test_who_has_gone_is_left_out(self, batches):
        queue, goes_on, done = self.held(batches)
        queue.submit("z", 0)
        while queue._waiting:
            time.sleep(0.001)
        gone, stays = queue.submit("a", 1), queue.submit("a", 2)
        assert gone.cancel()
        goes_on.set()
        assert stays.result(10).value == 4
        assert done[1] == ("a", [2])

    def test_an_error_is_that_of_each(self, batches):
        def run(key, items):
            raise OSError(key)

        queue = batches(run)
        for _ in range(2):
            with pytest.raises(OSError, match="a"):
                queue.submit("a", 1).result(10)

    def test_closing_does_what_waits(self):
        queue = Batches(lambda key, items: items, lambda key: 1, "tested")
        futures = [queue.submit("a", number) for number in range(5)]
        queue.close()
        assert [future.result(0).value for future in futures] == [0, 1, 2, 3, 4]
        with pytest.raises(RuntimeError):
            queue.submit("a", 1)
