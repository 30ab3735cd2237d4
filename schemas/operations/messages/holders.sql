-- Who else holds leases that an agent could take: each holder with the identity of its process, as agents/identity.sql.
-- Of each mailbox only the hundred timers that end first are looked at, and those in the index alone, so that the cost
-- does not grow with what is leased; the others end later, and are looked at when these are gone.
select h.agent_id, h.host, h.pid, h.pid_namespace, h.process_started_at, h.boot_id
from (
  select distinct leased_by from (
    select * from (
      select leased_by, status from agent_messages
      where due_at is not null and mailbox = :agent order by due_at limit 100) own
    union all
    select * from (
      select leased_by, status from agent_messages
      where due_at is not null
        and mailbox = (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)
      order by due_at limit 100) shared) timers
  where leased_by <> :agent and status = 'leased') m  -- not ready again: then `leased_by` is who had it
join agent_registry h on h.agent_id = m.leased_by
where h.pid is not null;
