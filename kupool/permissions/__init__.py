"""Who may do what: the roles, and one table of permissions for everything that has a name.

:mod:`kupool.permissions.roles` orders the roles, :mod:`kupool.permissions.offered` lists the
methods and routes with their default roles, :mod:`kupool.permissions.grants` reads rules, and
:mod:`kupool.permissions.table` answers whether a user may do something.
"""
