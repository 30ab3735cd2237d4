-- When the agents of each active session last made a checkpoint, or null.
select r.session_id, max((
  select c.created_at from agent_checkpoints c
  where c.rowid = (select max(rowid) from agent_checkpoints where agent_id = r.agent_id)))
from agent_registry r
join coordination_sessions s on s.session_id = r.session_id and s.status = 'active'
group by r.session_id;
