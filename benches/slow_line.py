#!/usr/bin/env python3
"""A slow line to a server on this machine: what goes through takes its time, and now and then is held up as if it were lost.

usage: slow_line.py UPSTREAM_PORT ROUND_TRIP_MS [LOSS_PERCENT]

Prints the port on which it listens. A connection costs one round trip to make, as with TCP, and each piece takes half a
round trip in its direction, with any number of pieces under way. A loss stalls its connection, in its direction, for a round
trip and 200 ms, the shortest time after which TCP sends again. It is drawn for each 64 KiB, or for what comes in one piece.
"""

import asyncio
import random
import sys


class Direction:
    """Hands on what it is given after a while, in the order in which it came."""

    def __init__(self, writer, delay, loss, stall):
        self.writer, self.delay, self.loss, self.stall = writer, delay, loss, stall
        self.free = self.last = 0.0
        self.loop = asyncio.get_running_loop()

    def send(self, data):
        if random.random() < self.loss:
            self.free = max(self.free, self.loop.time()) + self.stall
        # Two at the same moment would go on in any order.
        self.last = max(max(self.loop.time(), self.free) + self.delay, self.last + 1e-6)
        self.loop.call_at(self.last, self.write, data)

    def write(self, data):
        if self.writer.is_closing():
            return
        if data:
            self.writer.write(data)
        elif self.writer.can_write_eof():
            self.writer.write_eof()

    async def carry(self, reader):
        try:
            while data := await reader.read(65536):
                self.send(data)
                # What the other side does not take is not read either.
                while self.writer.transport.get_write_buffer_size() > 8 << 20:
                    await asyncio.sleep(0.005)
        except OSError:
            pass
        self.send(b"")


async def main():
    upstream, trip = int(sys.argv[1]), float(sys.argv[2]) / 1000
    loss = float(sys.argv[3]) / 100 if len(sys.argv) > 3 else 0.0

    async def serve(reader, writer):
        await asyncio.sleep(trip)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", upstream)
        there = Direction(to_server, trip / 2, loss, trip + 0.2)
        back = Direction(writer, trip / 2, loss, trip + 0.2)
        await asyncio.gather(there.carry(reader), back.carry(from_server))
        await asyncio.sleep(trip)
        to_server.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
