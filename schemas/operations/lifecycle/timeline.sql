-- The :limit last spawned agents, of one :priority or of all (null), the first spawned first: when each was spawned,
-- started and ended, as seconds since 1970; null for what has not come or is not known.
select agent_id, agent_type, task_id, priority_number, status, (julianday(spawned_at) - 2440587.5) * 86400e0,
  (julianday(started_at) - 2440587.5) * 86400e0, (julianday(completed_at) - 2440587.5) * 86400e0
from (
  select * from (
    select * from agent_lifecycle indexed by idx_spawned_at
    where :priority is null order by spawned_at desc, agent_id desc limit :limit) of_all
  union all
  select * from (
    select * from agent_lifecycle indexed by idx_priority_number
    where priority_number = :priority order by spawned_at desc, agent_id desc limit :limit) of_priority) chosen
order by spawned_at, agent_id;
