-- The checkpoints of an agent, newest first.
select record from checkpoint_records where agent_id = :agent order by sequence desc limit :limit;
