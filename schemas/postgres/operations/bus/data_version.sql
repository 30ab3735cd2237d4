-- Differs: PostgreSQL tells how far its log has come, which moves with every commit.
select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint;
