"""Speaks TLS on a port of its own, and passes what it hears on to a port of this machine.

usage: tls_front.py CERTIFICATE KEY UPSTREAM_PORT
"""

import asyncio
import ssl
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main():
    certificate, key, upstream = sys.argv[1], sys.argv[2], int(sys.argv[3])

    async def serve(reader, writer):
        from_server, to_server = await asyncio.open_connection("127.0.0.1", upstream)
        await asyncio.gather(copy(reader, to_server), copy(from_server, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(f"Listening on port {server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    await server.serve_forever()


asyncio.run(main())
