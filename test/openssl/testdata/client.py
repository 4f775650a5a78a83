# SPDX-License-Identifier: Apache-2.0
"""Shows a client certificate: client.py CHAIN KEY CA PORT. Prints what the server says."""
import socket
import ssl
import sys

context = ssl.create_default_context(cafile=sys.argv[3])
context.load_cert_chain(sys.argv[1], sys.argv[2])
with socket.create_connection(("127.0.0.1", int(sys.argv[4]))) as plain:
    with context.wrap_socket(plain, server_hostname="localhost") as conn:
        print(conn.recv(4096).decode(), flush=True)
