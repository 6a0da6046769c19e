"""The cryptography of IKE: algorithms by number and name, key derivation, encryption of messages, signatures.

Every function depends on its arguments alone: the caller gives the random octets.
"""
