-- The ready messages of an agent's mailbox and its type's queue, in the order they would be received; nothing changes.
select record from (
  select id, priority, created_at, expires_at, record from message_records where mailbox = :agent and status = 'ready'
  union all
  select id, priority, created_at, expires_at, record from message_records
  where mailbox = (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)
    and status = 'ready') waiting
cross join (
  select cast(value as double precision) as aging from agent_coordination_config where key = 'priority_aging_seconds') setting
where expires_at is null or expires_at > :now
order by iif(aging = 0, -priority, julianday(created_at) * 86400.0 - priority * aging), id limit :limit;
