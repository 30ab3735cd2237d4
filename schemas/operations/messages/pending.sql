-- What an agent would receive, in that order: the ready messages of its mailbox and its type's queue, and those that are
-- due to be ready, because their delay or their lease is over, and which nobody has moved yet. Nothing changes, and no process
-- is asked after: what a dead one holds comes back to who receives.
with
  boxes (mailbox) as (
    select :agent union all select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent),
  waiting (id) as (
    select id from agent_messages where mailbox in (select mailbox from boxes) and status = 'ready'
    union all
    select id from agent_messages
    where mailbox in (select mailbox from boxes) and due_at <= :now
      and (status = 'scheduled' or (status = 'leased' and retry_count < (
        select cast(value as double precision) from agent_coordination_config where key = 'message_retry_limit'))))
select record
from waiting join message_records m on m.id = waiting.id
cross join (
  select cast(value as double precision) as aging from agent_coordination_config where key = 'priority_aging_seconds') setting
where expires_at is null or expires_at > :now
order by iif(aging = 0, -priority, julianday(created_at) * 86400.0 - priority * aging), m.id limit :limit;
