-- Differs: whoever moves what is due at the same time is passed over; else as in schemas/operations.
with recursive mailboxes (name) as (
  select (select mailbox from agent_messages where due_at is not null order by mailbox limit 1)
  union all
  select (select mailbox from agent_messages where due_at is not null and mailbox > name order by mailbox limit 1)
  from mailboxes where name is not null),
due as materialized (
  select m.id from mailboxes b join agent_messages m on m.mailbox = b.name and m.due_at <= :now
  limit 10000 for update of m skip locked)
update agent_messages m set
  status = case
    when status in ('acknowledged', 'dead') then status
    when expires_at <= :now then 'dead'
    when status = 'leased' and retry_count >= retry_limit then 'dead'
    else 'ready' end,
  dead_reason = case
    when status in ('acknowledged', 'dead') then dead_reason
    when expires_at <= :now then 'expired'
    when status = 'leased' and retry_count >= retry_limit then 'retries_exhausted' end,
  retry_count = retry_count
    + case when status = 'leased' and coalesce(expires_at > :now, true) and retry_count < retry_limit then 1 else 0 end,
  due_at = case when expires_at > :now and status not in ('acknowledged', 'dead') then expires_at end
from (select (select value::double precision from agent_coordination_config
  where key = 'message_retry_limit') as retry_limit) settings
where m.id = any(array(select id from due)) and m.due_at <= :now
returning m.id, to_agent, status;
