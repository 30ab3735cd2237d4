-- Forget checkpoints whose retention is over, and all but the newest :keep of each agent (null: keep them); of one
-- agent, or of all (null). The newest of an agent always stays. Returns the ids.
delete from agent_checkpoints
where checkpoint_id in (
  select checkpoint_id from (
    select checkpoint_id, retention_until,
      row_number() over (partition by agent_id order by rowid desc) as place
    from agent_checkpoints where :agent is null or agent_id = :agent) places
  where place > 1 and (retention_until <= :now or place > :keep))
returning checkpoint_id;
