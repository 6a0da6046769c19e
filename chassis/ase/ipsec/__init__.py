"""IPsec packet engine: ESP, AH and both in tunnel mode over IPv4, replay windows, SA database.

`sadb.Sadb` is the entry point: install SAs (`sa`), set the SPD entries of tunnels (`spd`), then encapsulate and
decapsulate batches. The package uses no socket, clock or file, and does not know where an SA came from.

A batch is one contiguous buffer and a sequence of lengths (octets). Every packet is preceded by HEADROOM octets of
room for a link header, and its length counts them: the IPv4 header of packet i begins HEADROOM octets after the
end of packet i-1.
"""
