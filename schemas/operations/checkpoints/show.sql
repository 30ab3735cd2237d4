-- One checkpoint, or no row.
select record from checkpoint_records where checkpoint_id = :checkpoint;
