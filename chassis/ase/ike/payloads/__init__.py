"""Wire formats of IKE: the header of both versions, the payloads of each, and their chains."""
