# SPDX-License-Identifier: Apache-2.0
"""What is outside of the demo's session: servers that the agent may and may not reach.

Usage: outside.py FILES SOCKET READY

Serves the directory FILES over HTTP on 127.0.0.1, on port 8080 or the next one
that is free, and says hello to whoever connects to 127.0.0.2 (on any port) or to
SOCKET. When all listen, it writes both ports to the file READY. Ends when killed.
"""

import functools
import http.server
import os
import socket
import sys
import threading


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def file_server(directory):
    handler = functools.partial(Files, directory=directory)
    for port in range(8080, 8180):
        try:
            return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError:
            continue
    sys.exit("demo: no port from 8080 to 8179 is free on 127.0.0.1: stop one of the servers there")


def say_hello(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"hello")


def main():
    files, path, ready = sys.argv[1:]
    web = file_server(files)
    address = socket.create_server(("127.0.0.2", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    os.chmod(path, 0o666)
    unix.listen()
    for listener in (address, unix):
        threading.Thread(target=say_hello, args=(listener,), daemon=True).start()
    with open(ready + ".new", "w") as f:
        print(web.server_port, address.getsockname()[1], file=f)
    os.rename(ready + ".new", ready)
    web.serve_forever()


main()
