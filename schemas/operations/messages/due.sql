-- What is due in any mailbox moves, as in messages/receive.sql: scheduled messages become ready, leases that ran out
-- come back, expired ones die; ten thousand at a time. Returns id, address and status of each. The mailboxes are found
-- by jumping from one to the next in the index of timers, so that what is not due yet costs nothing.
with recursive mailboxes (name) as (
  select (select mailbox from agent_messages where due_at is not null order by mailbox limit 1)
  union all
  select (select mailbox from agent_messages where due_at is not null and mailbox > name order by mailbox limit 1)
  from mailboxes where name is not null)
update agent_messages set
  status = case
    when status in ('acknowledged', 'dead') then status
    when expires_at <= :now then 'dead'
    when status = 'leased' and retry_count >= retry_limit then 'dead'
    else 'ready' end,
  dead_reason = case
    when status in ('acknowledged', 'dead') then dead_reason
    when expires_at <= :now then 'expired'
    when status = 'leased' and retry_count >= retry_limit then 'retries_exhausted' end,
  retry_count = retry_count + (status = 'leased' and coalesce(expires_at > :now, 1) and retry_count < retry_limit),
  due_at = iif(expires_at > :now and status not in ('acknowledged', 'dead'), expires_at, null)
from (select (select cast(value as double precision) from agent_coordination_config
  where key = 'message_retry_limit') as retry_limit) settings
where id in (
  select m.id from mailboxes b join agent_messages m on m.mailbox = b.name and m.due_at <= :now limit 10000)
returning id, to_agent, status;
