"""IPsec packet engine: ESP, AH and both in tunnel mode over IPv4, replay windows, SA database.

`sadb.Sadb` is the way in: install SAs (`sa`), give tunnels their policies (`policy`), then protect
and open batches. Nothing here knows a socket, a clock, a file or where an SA came from.
"""
