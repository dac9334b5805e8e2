"""Accounts: authentication of users by passwords and tokens.

- ``authenticator`` asks the checkers of :mod:`twisted.cred`.
- ``login_guard`` limits password guessing.
- ``checker`` is our own checker, which uses an account file.
- ``hashing`` makes and verifies secrets.
- ``entries`` parses the text of the file.
- ``file`` changes it on disk.
- ``watcher`` keeps the last valid copy in memory.
"""
