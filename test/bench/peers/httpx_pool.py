"""Fetches a list with HTTPX, a hundred at a time over one pool, and writes each body to a file of its own.

Prints the CPU seconds that it took, without those of starting Python and importing HTTPX.
"""
import asyncio
import resource
import sys

import httpx


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def main(path, out, limit):
    with open(path) as f:
        todo = enumerate(f.read().split())
    limits = httpx.Limits(max_connections=limit, max_keepalive_connections=limit)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def work():
            for i, url in todo:
                response = await client.get(url)
                response.raise_for_status()
                with open(f"{out}/{i}", "wb") as f:
                    f.write(response.content)

        await asyncio.gather(*(work() for _ in range(limit)))


before = cpu()
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
print(cpu() - before, flush=True)
