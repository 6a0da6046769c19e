"""The arithmetic of IKE: algorithms by number and by name, key derivation, proofs of identity, protection.

Everything here is a function of its arguments: random octets are handed in.
"""
