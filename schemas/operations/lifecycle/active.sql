-- Who is spawned or running, the longest first, with how long in milliseconds.
select record, cast(round((julianday(:now) - julianday(spawned_at)) * 86400000) as bigint)
from lifecycle_records
where agent_id in (
  select agent_id from agent_lifecycle indexed by agent_lifecycle_open
  where status in ('spawned', 'running'))
order by /*sqlite*/ + /*end*/ spawned_at, agent_id;
