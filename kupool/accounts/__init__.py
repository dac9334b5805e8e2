"""Accounts: who may log in, and by what.

``authenticator`` asks the checkers of :mod:`twisted.cred`, and ``login_guard`` slows down
those who guess. Of the checker that is ours, ``hashing`` makes and checks secrets, ``entries``
reads the text of its file, ``file`` changes it on disk, ``watcher`` keeps the last good copy in
memory, and ``checker`` is what the authenticator asks.
"""
