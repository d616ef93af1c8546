"""Fetches a list with aiohttp, a hundred at a time over one pool, and writes each body to a file of its own.

Prints the CPU seconds that it took, without those of starting Python and importing aiohttp.
"""
import asyncio
import resource
import sys

import aiohttp


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def main(path, out, limit):
    with open(path) as f:
        todo = enumerate(f.read().split())
    connector = aiohttp.TCPConnector(limit=limit)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work():
            for i, url in todo:
                async with session.get(url) as response:
                    response.raise_for_status()
                    body = await response.read()
                with open(f"{out}/{i}", "wb") as f:
                    f.write(body)

        await asyncio.gather(*(work() for _ in range(limit)))


before = cpu()
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
print(cpu() - before, flush=True)
