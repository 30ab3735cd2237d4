-- Differs: the number is that of the next transaction, which grows with every one that writes.
select pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
