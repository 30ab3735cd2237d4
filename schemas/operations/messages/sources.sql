-- The next message of an agent, for messages/take.sql: its id, its last delivery and its record, all null when there is
-- none; no row for an unknown agent.
--
-- It is the better one of the best ready messages of its mailbox and of its type's queue, told by one number that sorts
-- as they are taken: (10 - priority) * 10^16 + id. `own_due`, `queue_due`: the first timers of the two, to be compared
-- with `now`: when one is over, or a clock was set back (since the session's `last_activity`), or messages age,
-- messages/receive.sql must sort things out first. `lease` is in seconds. `own_holders`, `queue_holders`: the first and the
-- last by name of those who hold what messages/holders.sql looks at.
select :now as now,
  (select min(due_at) from agent_messages where due_at is not null and mailbox = :agent) as own_due,
  (select min(due_at) from agent_messages
   where due_at is not null and mailbox = '@' || a.agent_type || '/' || a.session_id) as queue_due,
  (select last_activity from coordination_sessions where session_id = a.session_id) as last_activity,
  (select cast(value as real) > 0 from agent_coordination_config where key = 'priority_aging_seconds') as aging,
  coalesce(:lease, (select value from agent_coordination_config where key = 'lease_seconds')) as lease,
  case when exists (select 1 from agent_messages where due_at is not null and mailbox = :agent) then (
    select min(leased_by) || ' ' || max(leased_by) from (
      select leased_by, status from agent_messages
      where due_at is not null and mailbox = :agent order by due_at limit 100) own
    where leased_by <> :agent and status = 'leased') end as own_holders,
  case when exists (
      select 1 from agent_messages
      where due_at is not null and mailbox = '@' || a.agent_type || '/' || a.session_id) then (
    select min(leased_by) || ' ' || max(leased_by) from (
      select leased_by, status from agent_messages
      where due_at is not null and mailbox = '@' || a.agent_type || '/' || a.session_id order by due_at limit 100) queue
    where leased_by <> :agent and status = 'leased') end as queue_holders,
  m.id, m.delivery, m.record
from agent_registry a left join message_records m on m.id = min(
  coalesce((select (10 - min(max(priority, 1), 10)) * 10000000000000000 + id from agent_messages
   where mailbox = :agent and status = 'ready' order by priority desc, id limit 1), 9e18),
  coalesce((select (10 - min(max(priority, 1), 10)) * 10000000000000000 + id from agent_messages
   where mailbox = '@' || a.agent_type || '/' || a.session_id and status = 'ready'
   order by priority desc, id limit 1), 9e18)) % 10000000000000000
where a.agent_id = :agent;
