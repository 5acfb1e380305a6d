"""Transactions of PostgreSQL that see one tenant's rows, under the policies of pgguard
(docs/guides/any-language.md), by psycopg 3."""

from contextlib import contextmanager
from queue import LifoQueue
from threading import Lock

import psycopg
from psycopg.pq import TransactionStatus

from tokens import Token


class Pool:
    """Up to size connections, in autocommit, without prepared statements: as PgBouncer in transaction mode wants."""

    def __init__(self, dsn, size=4):
        self._dsn, self._idle = dsn, LifoQueue()
        for _ in range(size):
            self._idle.put(None)  # opened when it is first needed

    @contextmanager
    def connection(self):
        conn = self._idle.get()
        try:
            if conn is None or conn.closed:
                conn = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)
            yield conn
        finally:
            if conn is not None and conn.info.transaction_status != TransactionStatus.IDLE:
                conn.close()  # which ends whatever it was in
            self._idle.put(conn)


class Transaction:
    """What a handler is given. Once the transaction ends it takes no statement: the connection is another
    request's then, perhaps another tenant's. Rows are whole lists, since a cursor would know the connection."""

    def __init__(self, conn):
        self._conn, self._lock = conn, Lock()

    def execute(self, statement, values=()):
        with self._lock:
            if self._conn is None:
                raise RuntimeError("the transaction is over")
            cursor = self._conn.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def end(self):
        with self._lock:
            self._conn = None


@contextmanager
def tenant_transaction(pool, token):
    """A transaction whose rows are those of the token's tenant. The setting ends with the transaction, so that
    the next user of the connection sees nothing."""
    if not isinstance(token, Token):
        raise TypeError("a verified token is needed")
    token.alive()
    with pool.connection() as conn, conn.transaction():
        conn.execute("SELECT pg_catalog.set_config('tenantguard.tenant', %s, true)", (token.tenant,))
        db = Transaction(conn)
        try:
            yield db
        finally:
            db.end()
        if conn.info.transaction_status != TransactionStatus.INTRANS:
            raise RuntimeError("a statement had failed, or the transaction was ended inside")


def check_role(pool):
    """Raises where row security does not bind the pool's user. Call it at start."""
    with pool.connection() as conn:
        name, unbound = conn.execute("""
            SELECT current_user, EXISTS (
              SELECT FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER') AND (
                r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication OR EXISTS (
                  SELECT FROM pg_catalog.pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p'))))""").fetchone()
    if unbound:
        raise RuntimeError(f"{name} goes round row security, or owns tables")
