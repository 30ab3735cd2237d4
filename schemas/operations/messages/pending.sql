-- The ready messages of an agent's mailbox and its type's queue, in the order they would be received; nothing changes.
select record from (
  select id, priority, record from message_records where mailbox = :agent and status = 'ready'
  union all
  select id, priority, record from message_records
  where mailbox = (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)
    and status = 'ready')
order by priority desc, id limit :limit;
