# SPDX-License-Identifier: Apache-2.0
"""Runs Keylime's last Python agent (6.6.0) against a Keylime of today.

That agent does attest to a 7.14 verifier, but four things have changed around it
since. Each is bridged here, and nothing else: TPM, quotes, TLS and registration
are the agent's own.
"""

from keylime import config, crypto, keylime_agent, registrar_client, requests_client
from keylime import json

# 1. A registrar of today refuses a body that does not say what it is.
plain_init = requests_client.RequestsClient.__init__


def init(self, *args, **kwargs):
    plain_init(self, *args, **kwargs)
    self.session.headers["Content-Type"] = "application/json"


requests_client.RequestsClient.__init__ = init

# 2. It also wants the endorsement key where there is a certificate of it.
plain_register = registrar_client.doRegisterAgent
plain_post = requests_client.RequestsClient.post


def register(ip, port, agent, ek_tpm, *args, **kwargs):
    def post(self, url, data, **more):
        return plain_post(self, url, data=json.dumps({**json.loads(data), "ek_tpm": ek_tpm}), **more)

    requests_client.RequestsClient.post = post
    return plain_register(ip, port, agent, ek_tpm, *args, **kwargs)


registrar_client.doRegisterAgent = register

# 3. One RSA key used to serve TLS and to receive payloads. The key of the
# certificate is EC, and stays with TLS; payloads, of which there are none, get one
# of their own, as today's agents do.
crypto.rsa_import_privkey = lambda key, password=None: crypto.rsa_generate(2048)

# 4. Today's agents read trusted_client_ca as names with commas, not as a list.
plain_list = config.getlist


def getlist(component, option, section=None):
    text = config.get(component, option, section)
    return plain_list(component, option, section) if text.startswith("[") else [name.strip() for name in text.split(",")]


config.getlist = getlist

keylime_agent.main()
