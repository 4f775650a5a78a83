# SPDX-License-Identifier: Apache-2.0
"""Serves "served by Python" over TLS 1.3: server.py CHAIN KEY. It knows nothing of TPMs."""
import socket
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print("ACCEPT %s:%d" % listener.getsockname(), flush=True)
while True:
    plain, _ = listener.accept()
    try:
        with context.wrap_socket(plain, server_side=True) as conn:
            conn.recv(4096)
            text = b"served by Python"
            conn.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    except OSError as e:
        print("handshake:", e, file=sys.stderr, flush=True)
