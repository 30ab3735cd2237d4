-- The checkpoint an agent goes on from: the one named, or (null) its latest; no row when it has none.
select record from checkpoint_records
where agent_id = :agent and (:checkpoint is null or checkpoint_id = :checkpoint)
order by sequence desc limit 1;
