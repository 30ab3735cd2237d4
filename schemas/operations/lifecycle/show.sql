-- One record, or no row.
select record from lifecycle_records where agent_id = :id;
