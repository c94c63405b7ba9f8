"""Who may call the server: TLS and client certificates, tokens, and the quotas of each token.

    exposure.py      refuses to listen beyond this machine without encryption
    certificates.py  the server's certificate, read again when its files change
    callers.py       Caller: what a client may do; every call has one
    tokens.py        the file of tokens
    access.py        authenticates a call: a token, a client certificate or nobody
    quotas.py        pixels in flight and per second of each caller; server/core/shared.py asks it
    reloaded.py      values that are read again when their files change

`python -m server` makes these of its flags (the group "Security" of server/options.py). docs/security.md is for operators.
"""
