-- What an agent that waits looks at whenever others have written, as cheaply as can be: its type; when something of its
-- mailbox, and of its type's queue, becomes due, or null; and whether something is ready in one of them. (The first, not
-- the least: without statistics PostgreSQL before 17 looks through all of them for `min`.)
select a.agent_type,
  (select due_at from agent_messages where due_at is not null and mailbox = :agent order by due_at limit 1),
  (select due_at from agent_messages
   where due_at is not null and mailbox = '@' || a.agent_type || '/' || a.session_id order by due_at limit 1),
  exists (select 1 from agent_messages where mailbox = :agent and status = 'ready')
    or exists (select 1 from agent_messages
      where mailbox = '@' || a.agent_type || '/' || a.session_id and status = 'ready')
from (select 1) one left join agent_registry a on a.agent_id = :agent;
