-- When something of an agent's mailbox or its type's queue becomes due, and in how many seconds, or null; its type; and
-- whether something is ready in one of them.
select first.due_at, (julianday(first.due_at) - julianday(:now)) * 86400.0,
  (select agent_type from agent_registry where agent_id = :agent),
  exists (select 1 from agent_messages where mailbox = :agent and status = 'ready')
    or exists (select 1 from agent_messages where status = 'ready' and mailbox = (
      select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent))
from (
  select min(due_at) as due_at from (
    select min(due_at) as due_at from agent_messages where due_at is not null and mailbox = :agent
    union all
    select min(due_at) as due_at from agent_messages where due_at is not null and mailbox = (
      select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)) own) first;
