-- In how many seconds something of an agent's mailbox or its type's queue becomes due, or null.
select (julianday(min(first.due_at)) - julianday(:now)) * 86400.0 from (
  select min(due_at) as due_at from agent_messages where due_at is not null and mailbox = :agent
  union all
  select min(due_at) as due_at from agent_messages where due_at is not null and mailbox = (
    select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)) first;
