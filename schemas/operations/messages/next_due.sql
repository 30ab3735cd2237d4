-- In how many seconds something of an agent's mailbox or its type's queue becomes due, or null. See messages/glance.sql.
select (julianday(min(first.due_at)) - julianday(:now)) * 86400.0 from (
  select * from (
    select due_at from agent_messages where due_at is not null and mailbox = :agent order by due_at limit 1) own
  union all
  select * from (
    select due_at from agent_messages
    where due_at is not null
      and mailbox = (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)
    order by due_at limit 1) shared) first;
